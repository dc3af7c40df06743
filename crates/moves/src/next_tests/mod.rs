//! Simulated databases, an operator that may stop anywhere, and what has to come of it.

mod answers;
mod databases;
mod operator;
mod random;
mod remains;
mod resuming;
