//! Folders of the host that a guest sees: `--share`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Result, ensure};

use crate::machine::{Bus, KernelKind};

/// The tag of a folder without one.
const DEFAULT_TAG: &str = "host";
/// What the protocol's device takes.
const TAG_MAX: usize = 31;

/// `[TAG=]DIR[:ro]`: the folder is /mnt/TAG in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub tag: String,
    pub folder: PathBuf,
    pub read_only: bool,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let (text, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (tag, folder) = match text.split_once('=') {
            Some((tag, folder)) if is_tag(tag) => (tag, folder),
            _ => (DEFAULT_TAG, text),
        };
        if folder.is_empty() {
            return Err("there is no folder in it".into());
        }
        Ok(Share { tag: tag.into(), folder: folder.into(), read_only })
    }
}

fn is_tag(text: &str) -> bool {
    (1..=TAG_MAX).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Can they be shared with this kernel?
pub fn check(shares: &[Share], kernel: KernelKind) -> Result<()> {
    ensure!(
        shares.is_empty() || kernel == KernelKind::Pollux,
        "--share needs Pollux: Debian's kernel for virtual machines comes without 9p"
    );
    for (index, share) in shares.iter().enumerate() {
        let folder = share.folder.display();
        ensure!(share.folder.exists(), "--share: there is no folder {folder}");
        ensure!(share.folder.is_dir(), "--share: {folder} is not a folder");
        ensure!(std::fs::read_dir(&share.folder).is_ok(), "--share: the folder {folder} cannot be read");
        ensure!(
            shares[..index].iter().all(|other| other.tag != share.tag),
            "--share: two folders have the tag {}; give one another with TAG=DIR",
            share.tag
        );
    }
    Ok(())
}

/// QEMU's server for each folder. It creates files as the user that QEMU runs as.
pub fn add_devices(shares: &[Share], bus: Bus, qemu: &mut Command) {
    let suffix = match bus {
        Bus::Mmio => "device",
        Bus::Pci => "pci",
    };
    for (index, share) in shares.iter().enumerate() {
        let read_only = if share.read_only { ",readonly=on" } else { "" };
        let path = escaped(&share.folder);
        qemu.args([
            "-fsdev",
            &format!("local,id=share{index},path={path},security_model=none,multidevs=remap{read_only}"),
            "-device",
            &format!("virtio-9p-{suffix},fsdev=share{index},mount_tag={}", share.tag),
        ]);
    }
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// What init is told.
pub fn init_args(shares: &[Share]) -> impl Iterator<Item = String> {
    shares.iter().flat_map(|share| {
        let read_only = if share.read_only { ":ro" } else { "" };
        ["--share".to_string(), format!("{}{read_only}", share.tag)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> (String, String, bool) {
        let share: Share = text.parse().unwrap();
        (share.tag, share.folder.display().to_string(), share.read_only)
    }

    #[test]
    fn a_share_is_a_folder_perhaps_with_a_tag_and_a_mode() {
        assert_eq!(share("/a/b"), ("host".into(), "/a/b".into(), false));
        assert_eq!(share("/a/b:ro"), ("host".into(), "/a/b".into(), true));
        assert_eq!(share("src=/a=b:rw"), ("src".into(), "/a=b".into(), false));
        assert_eq!(share("./a=b"), ("host".into(), "./a=b".into(), false));
        assert!("".parse::<Share>().is_err());
        assert!("src=".parse::<Share>().is_err());
    }

    #[test]
    fn what_cannot_be_shared_is_said_in_one_sentence() {
        let error = |texts: &[&str], kernel| {
            let shares: Vec<Share> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check(&shares, kernel).unwrap_err().to_string()
        };
        assert_eq!(error(&["/nowhere/at/all"], KernelKind::Pollux), "--share: there is no folder /nowhere/at/all");
        assert_eq!(error(&["/etc/passwd"], KernelKind::Pollux), "--share: /etc/passwd is not a folder");
        assert!(error(&["/", "/usr"], KernelKind::Pollux).contains("two folders have the tag host"));
        assert!(error(&["/"], KernelKind::Linux).contains("without 9p"));
    }
}
