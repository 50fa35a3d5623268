//! Shell scripts made of cases, and what each shows: recorded on Linux, compared on Pollux.
//!
//! A file `FAMILY.sh` holds cases, each under a line `#@ name`; what comes before the first is
//! put in front of every case. Each case runs with `sh` in an empty directory; its standard output and
//! error and its status make up its transcript.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab;

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub script: String,
}

/// Seconds that a case may take.
const CASE_LIMIT: u32 = 30;
/// For all cases of a family.
const FAMILY_LIMIT: Duration = Duration::from_secs(240);

/// The cases of a script.
pub fn cases(text: &str) -> Vec<Case> {
    let mut parts = text.split("\n#@ ");
    let common = parts.next().unwrap_or_default();
    parts
        .map(|part| {
            let (name, script) = part.split_once('\n').unwrap_or((part, ""));
            Case { name: name.trim().to_string(), script: format!("{common}\n{script}\n") }
        })
        .collect()
}

/// Runs all cases in one guest. A case that the kernel did not survive, and those after it, are
/// missing; the error of the run says why.
pub fn run(cases: &[Case]) -> Result<(BTreeMap<String, String>, Option<anyhow::Error>)> {
    let script = driver(cases);
    let machine = lab::machine(&lab::options(), "test")?;
    let request = pollux_wire::Request { argv: vec![b"sh".to_vec()], ..pollux_wire::Request::default() };
    let input = xtask::session::Input::Bytes(script.into_bytes());
    let output = xtask::session::capture(&machine, request, input, FAMILY_LIMIT)?;
    let error = match &output.outcome {
        xtask::session::Outcome::Exit(_) => None,
        other => {
            let log = String::from_utf8_lossy(&output.log).replace('\r', "");
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            Some(anyhow::anyhow!("{other:?}; end of the kernel's log:\n{end}"))
        }
    };
    Ok((parse(&String::from_utf8_lossy(&output.stdout)), error))
}

/// A script that writes each case to a file and runs it. Whether a shell says that its job was
/// killed depends on which of the two it hears of first, so such lines are left out.
fn driver(cases: &[Case]) -> String {
    let mut script = String::from("mkdir /tmp/cases && cd /tmp/cases || exit 1\n");
    for (number, case) in cases.iter().enumerate() {
        let Case { name, script: text } = case;
        let _ = write!(
            script,
            "cat > {number}.sh <<'END_OF_CASE'\n{text}\nEND_OF_CASE\n\
             mkdir {number}; cd {number}\n\
             timeout {CASE_LIMIT} sh ../{number}.sh > ../{number}.out 2>&1 < /dev/null\n\
             status=$?; cd ..\n\
             echo '=== {name}'; sed -E '/^(Terminated|Killed|Hangup)$/d;s/^/| /' {number}.out; echo \"status $status\"\n\
             chmod -R u+rwx {number}; rm -rf {number}\n"
        );
    }
    script
}

/// Transcripts by the names of their cases.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut transcripts = BTreeMap::new();
    for part in text.split("=== ").skip(1) {
        if let Some((name, transcript)) = part.split_once('\n')
            && transcript.contains("status ")
        {
            transcripts.insert(name.to_string(), transcript.to_string());
        }
    }
    transcripts
}

/// Writes transcripts in the order of their cases.
pub fn record(path: &Path, cases: &[Case], transcripts: &BTreeMap<String, String>) -> Result<()> {
    let mut text = String::new();
    for case in cases {
        let transcript =
            transcripts.get(&case.name).with_context(|| format!("the case {} has no transcript", case.name))?;
        let _ = write!(text, "=== {}\n{transcript}", case.name);
    }
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The difference of two transcripts, line by line as far as they agree.
pub fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let shown = |lines: &[&str], sign: char| -> String {
        lines[same..].iter().take(15).map(|line| format!("{sign} {line}\n")).collect()
    };
    format!(
        "they agree in {same} lines, then (- Linux, + this kernel):\n{}{}",
        shown(&expected, '-'),
        shown(&actual, '+')
    )
}
