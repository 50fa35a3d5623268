//! drivers
pub mod random;
