//! Moves of ranges between two databases of the test server, with real replication.

mod concurrent;
mod guards;
mod ledger;
mod left_behind;
mod mutations;
mod pair;
mod refusals;
mod strict;
mod unattended;
mod undone;
mod whole;
