//! Differences from Linux that there is a reason for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Reasons by the names of tests.
pub type Known = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    difference: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    test: String,
    reason: String,
}

pub fn read(path: &Path) -> Result<Known> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Known> {
    let mut known = Known::new();
    for entry in toml::from_str::<Document>(text)?.difference {
        ensure!(!entry.reason.trim().is_empty(), "{} has no reason", entry.test);
        ensure!(known.insert(entry.test.clone(), entry.reason).is_none(), "{} is there twice", entry.test);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_needs_a_reason() {
        let entry = |reason: &str| format!("[[difference]]\ntest = \"a.b\"\nreason = \"{reason}\"\n");
        assert_eq!(parse(&entry("because")).unwrap()["a.b"], "because");
        assert!(parse(&entry(" ")).is_err());
        assert!(parse(&(entry("one") + &entry("two"))).is_err());
        assert!(parse("").unwrap().is_empty());
    }
}
