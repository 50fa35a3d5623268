//! Images, and what e2fsprogs say about them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Attributes, Files};
use crate::machine;

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    // Images must be the same in each run.
    command.env("E2FSPROGS_FAKE_TIME", "1700000000");
    command
}

fn run_tool(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("e2fsprogs is needed: mke2fs, e2fsck, debugfs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// A directory that goes away with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Temporary {
        let path = std::env::temp_dir().join(format!("pollux-sim-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const BLOCK_SIZES: [usize; 2] = [1024, 4096];

/// What the file system is made as.
#[derive(Clone, Copy)]
pub enum Kind {
    Ext2,
    /// With extents and checksums, and without a journal.
    Ext4,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext2 => "ext2",
            Kind::Ext4 => "ext4",
        }
    }
}

/// What free blocks are full of: what somebody has deleted. No file has it.
pub const OLD: u8 = 0xf8;

/// Empty file systems, made once for all seeds.
pub fn images(kind: Kind) -> &'static [Vec<u8>; 2] {
    static IMAGES: [OnceLock<[Vec<u8>; 2]>; 2] = [OnceLock::new(), OnceLock::new()];
    IMAGES[kind as usize].get_or_init(|| {
        BLOCK_SIZES.map(|size| {
            let dir = Temporary::new();
            let path = dir.0.join("image");
            std::fs::write(&path, vec![OLD; 4 << 20]).expect("room for an image");
            let id = "00000000-0000-4000-8000-000000000001";
            let mut command = tool("mke2fs");
            command.args(["-q", "-F", "-t", kind.name(), "-m", "0", "-U", id, "-E"]);
            command.arg(format!("hash_seed={id},nodiscard,lazy_itable_init=0"));
            command.args(["-O", "^has_journal"]);
            let (code, text) = run_tool(command.args(["-b", &size.to_string()]).arg(&path));
            assert_eq!(code, 0, "mke2fs: {text}");
            std::fs::read(&path).expect("what was just written")
        })
    })
}

/// In which way an image was left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Clean,
    /// Power has gone.
    Cut,
    /// The disk has failed.
    Damaged,
}

/// What the files of an image are, by their paths, after e2fsck has repaired it; and what they have of these attributes.
pub fn contents(image: &[u8], state: State, names: &[(String, String)]) -> (Files, Attributes) {
    let dir = Temporary::new();
    let (path, root) = (dir.0.join("image"), dir.0.join("root"));
    std::fs::write(&path, image).expect("room for an image");
    if state != State::Clean {
        std::fs::copy(&path, dir.0.join("before")).expect("room for an image");
        let (code, text) = run_tool(tool("e2fsck").args(["-f", "-p"]).arg(&path));
        text.lines().for_each(machine::note);
        if code & !3 != 0 {
            assert!(state == State::Damaged, "e2fsck asks:\n{text}");
            let (code, text) = run_tool(tool("e2fsck").args(["-f", "-y"]).arg(&path));
            text.lines().for_each(machine::note);
            assert!(code & !3 == 0, "e2fsck cannot repair the image ({code}):\n{text}");
        }
    }
    let (code, text) = run_tool(tool("e2fsck").args(["-f", "-n"]).arg(&path));
    assert_eq!(code, 0, "e2fsck: {text}");
    std::fs::create_dir(&root).expect("a directory");
    let (code, text) = run_tool(tool("debugfs").arg("-R").arg(format!("rdump / {}", root.display())).arg(&path));
    assert_eq!(code, 0, "debugfs: {text}");
    let mut files = Files::new();
    collect(&root, "", &mut files);
    let commands: String = names.iter().map(|(path, name)| format!("ea_get -x {path} {name}\n")).collect();
    let script = dir.0.join("commands");
    std::fs::write(&script, commands).expect("room for a list");
    let (code, text) = run_tool(tool("debugfs").arg("-f").arg(&script).arg(&path));
    assert_eq!(code, 0, "debugfs: {text}");
    (files, shown_attributes(&text))
}

/// Reads what debugfs says to a list of commands: each command, and then perhaps `user.0 (2) = 1f 20`.
fn shown_attributes(text: &str) -> Attributes {
    let mut shown = Attributes::new();
    let mut asked = None;
    for line in text.lines() {
        if let Some((path, name)) = line.strip_prefix("debugfs: ea_get -x ").and_then(|rest| rest.split_once(' ')) {
            asked = Some((path.to_owned(), name.to_owned()));
        } else if let Some((_, hex)) = line.split_once(") = ")
            && let Some(key) = asked.take()
        {
            shown.insert(key, hex.split_whitespace().filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect());
        }
    }
    shown
}

fn collect(dir: &Path, name: &str, files: &mut Files) {
    for entry in std::fs::read_dir(dir).expect("what debugfs wrote").flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        match entry.path() {
            path if path.is_dir() => collect(&path, &name, files),
            path => {
                files.insert(name, std::fs::read(path).unwrap_or_default());
            }
        }
    }
}

pub fn check(found: &Files, expected: &Files, what: &str) {
    for (path, content) in expected {
        let Some(there) = found.get(path) else { panic!("{what}: {path} is missing") };
        let same = there.iter().zip(content).take_while(|(a, b)| a == b).count();
        assert!(
            there == content,
            "{what}: {path} has {} bytes instead of {}, the first {same} are right",
            there.len(),
            content.len()
        );
    }
}

/// Nobody may see what others have deleted: a file has bytes of its worker, and zeros.
pub fn check_origin(found: &Files, dir: &str, is_own: impl Fn(u8) -> bool) {
    for (path, content) in found.iter().filter(|(path, _)| path.starts_with(&format!("{dir}/"))) {
        let other = content.iter().position(|byte| *byte != 0 && !is_own(*byte));
        assert!(other.is_none(), "{path} shows at {other:?} of {} what is not its own", content.len());
    }
}

/// What must be there of files that have changed.
pub fn check_kept(found: &Files, kept: &Files) {
    for (path, content) in kept.iter().filter(|(_, content)| !content.is_empty()) {
        let Some(there) = found.get(path) else { panic!("{path}, once synced, is missing") };
        let same = there.iter().zip(content).take_while(|(a, b)| a == b).count();
        assert!(same == content.len(), "of {path} {} bytes were synced, the first {same} are right", content.len());
    }
}
