//! Transcripts by the names of their tests, and the files with those of Linux.
//!
//! A file has a line `== family.behaviour` in front of each transcript; so has what the guest prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

pub type Transcripts = BTreeMap<String, String>;

const HEADING: &str = "== ";

pub fn parse(text: &str) -> Transcripts {
    let mut found = Transcripts::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(HEADING) {
            current = Some(name);
            found.insert(name.to_string(), String::new());
        } else if let Some(transcript) = current.and_then(|name| found.get_mut(name)) {
            transcript.push_str(line);
            transcript.push('\n');
        }
    }
    found
}

/// All transcripts in a folder.
pub fn read(folder: &Path) -> Result<Transcripts> {
    let mut all = Transcripts::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            all.extend(parse(&text));
        }
    }
    Ok(all)
}

/// Writes transcripts into a folder. Those of other tests stay, except if these are `all`.
pub fn record(folder: &Path, new: Transcripts, all: bool) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut transcripts = if all { Transcripts::new() } else { read(folder)? };
    transcripts.extend(new);
    let mut files = BTreeMap::<&str, String>::new();
    for (name, transcript) in &transcripts {
        let family = name.split('.').next().unwrap_or_default();
        write!(files.entry(family).or_default(), "{HEADING}{name}\n{transcript}")?;
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let family = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "txt") && !files.contains_key(family) {
            fs::remove_file(&path)?;
        }
    }
    for (family, text) in files {
        let path = folder.join(format!("{family}.txt"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let text = "== a.one\nline\n\n-- exited with 1\n== a.two\n== b.one\nx\n";
        record(folder.path(), parse(text), true)?;
        assert_eq!(read(folder.path())?, parse(text));
        assert_eq!(parse(text)["a.one"], "line\n\n-- exited with 1\n");
        record(folder.path(), parse("== a.two\nnew\n"), false)?;
        assert_eq!(read(folder.path())?.len(), 3);
        record(folder.path(), parse("== a.two\nnew\n"), true)?;
        assert_eq!(read(folder.path())?, parse("== a.two\nnew\n"));
        Ok(())
    }
}
