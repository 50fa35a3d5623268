//! The tests by family.

pub mod exec;
mod open;

use crate::Test;

pub const FAMILIES: &[(&str, &[Test])] = &[("open", open::TESTS), ("exec", exec::TESTS)];
