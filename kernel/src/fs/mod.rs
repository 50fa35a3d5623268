//! fs
pub mod tty;
