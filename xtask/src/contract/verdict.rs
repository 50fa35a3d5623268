//! What a run came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

use super::known::Known;
use super::transcripts::Transcripts;

#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    Equal,
    /// What differs, as lines that begin with a blank, `-` (recorded) or `+` (seen).
    Differs(String),
    /// The same with the reason for it.
    Known(String, String),
    /// Nothing differs any more.
    KnownForNothing,
    NotRecorded,
    /// It was recorded once and did not run.
    Missing,
}

impl Finding {
    pub fn failed(&self) -> bool {
        !matches!(self, Finding::Equal | Finding::Known(..))
    }

    /// What is wrong, in lines.
    pub fn shown(&self) -> String {
        match self {
            Finding::Equal => String::new(),
            Finding::Differs(diff) => diff.clone(),
            Finding::Known(_, reason) => format!("differs: {reason}\n"),
            Finding::KnownForNothing => {
                "does not differ any more: take it out of tests/contracts/known.toml\n".to_string()
            }
            Finding::NotRecorded => "not recorded: cargo xtask contract --record\n".to_string(),
            Finding::Missing => "recorded, but did not run\n".to_string(),
        }
    }
}

pub struct Verdict {
    pub findings: BTreeMap<String, Finding>,
}

impl Verdict {
    pub fn new(recorded: &Transcripts, found: &Transcripts, known: &Known) -> Verdict {
        let names = recorded.keys().chain(found.keys()).chain(known.keys());
        let finding = |name: &String| match (recorded.get(name), found.get(name), known.get(name)) {
            (None, Some(_), _) => Finding::NotRecorded,
            (_, None, _) => Finding::Missing,
            (Some(old), Some(new), None) if old == new => Finding::Equal,
            (Some(old), Some(new), Some(_)) if old == new => Finding::KnownForNothing,
            (Some(old), Some(new), None) => Finding::Differs(diff(old, new)),
            (Some(old), Some(new), Some(reason)) => Finding::Known(diff(old, new), reason.clone()),
        };
        Verdict { findings: names.map(|name| (name.clone(), finding(name))).collect() }
    }

    pub fn failed(&self) -> usize {
        self.findings.values().filter(|finding| finding.failed()).count()
    }

    /// All that is not just equal; with colours for terminals.
    pub fn shown(&self, colours: bool) -> String {
        let mut text = String::new();
        for (name, finding) in self.findings.iter().filter(|(_, finding)| **finding != Finding::Equal) {
            let _ = writeln!(text, "{name}:");
            for line in finding.shown().lines() {
                let _ = match (colours, line.as_bytes().first()) {
                    (true, Some(b'-')) => writeln!(text, "  \x1b[31m{line}\x1b[0m"),
                    (true, Some(b'+')) => writeln!(text, "  \x1b[32m{line}\x1b[0m"),
                    _ => writeln!(text, "  {line}"),
                };
            }
        }
        text
    }

    pub fn summary(&self) -> String {
        let count = |wanted: fn(&Finding) -> bool| self.findings.values().filter(|finding| wanted(finding)).count();
        let equal = count(|finding| *finding == Finding::Equal);
        let known = count(|finding| matches!(finding, Finding::Known(..)));
        format!("{} tests, {equal} equal, {known} differ for a reason, {} failed", self.findings.len(), self.failed())
    }
}

fn diff(old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    let mut text = String::new();
    for group in diff.grouped_ops(2) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let _ = write!(text, "{sign} {change}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcripts(pairs: &[(&str, &str)]) -> Transcripts {
        pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn each_kind_of_finding() {
        let recorded = transcripts(&[("a", "1\n"), ("b", "1\n2\n"), ("c", "1\n"), ("d", "1\n"), ("e", "1\n")]);
        let found = transcripts(&[("a", "1\n"), ("b", "1\n3\n"), ("c", "2\n"), ("d", "1\n"), ("f", "1\n")]);
        let known = transcripts(&[("c", "why"), ("d", "why"), ("g", "why")]);
        let verdict = Verdict::new(&recorded, &found, &known);
        assert_eq!(verdict.findings["a"], Finding::Equal);
        assert_eq!(verdict.findings["b"], Finding::Differs("  1\n- 2\n+ 3\n".into()));
        assert_eq!(verdict.findings["c"], Finding::Known("- 1\n+ 2\n".into(), "why".into()));
        assert_eq!(verdict.findings["d"], Finding::KnownForNothing);
        assert_eq!(verdict.findings["e"], Finding::Missing);
        assert_eq!(verdict.findings["f"], Finding::NotRecorded);
        assert_eq!(verdict.findings["g"], Finding::Missing);
        assert_eq!(verdict.failed(), 5);
        assert_eq!(verdict.summary(), "7 tests, 1 equal, 1 differ for a reason, 5 failed");
    }
}
