//! Keys move while orders keep flowing. These tests make clusters of up to ten database pods, so the platform that the
//! other tests share is removed before; the next test that asks for it makes it again.

mod abandoned;
mod under_load;
