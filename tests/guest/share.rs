//! Folders of the host in the guest: `--share`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{machine, options, text_of};
use pollux_tests::run_on;
use xtask::machine::{Bus, MachineOptions};
use xtask::share::Share;

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("share::files_go_both_ways", || both_ways(Bus::Mmio)),
        trial("share::files_go_both_ways_on_pci", || both_ways(Bus::Pci)),
        trial("share::names_and_attributes", names),
        trial("share::what_the_host_changes_is_seen", host_changes),
        trial("share::a_share_for_reading", read_only),
        trial("share::git_works_in_it", git),
    ]
}

/// A folder for one test, empty.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("pollux-share-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.0.join(name);
        fs::read(&path).with_context(|| path.display().to_string())
    }

    fn options(&self, mode: &str, bus: Bus) -> Result<MachineOptions> {
        let share: Share = format!("{}{mode}", self.0.display()).parse().map_err(anyhow::Error::msg)?;
        Ok(MachineOptions { share: vec![share], bus, ..options() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn script(folder: &Folder, mode: &str, bus: Bus, image: &str, script: &str) -> Result<String> {
    let script = format!("set -e\ncd /mnt/host\n{script}");
    let machine = machine(&folder.options(mode, bus)?, image)?;
    text_of(run_on(&machine, &["sh", "-c", &script], b"", Duration::from_secs(120))?)
}

fn both_ways(bus: Bus) -> Result<()> {
    let folder = Folder::new(&format!("ways-{bus:?}"))?;
    let big: Vec<u8> = (0..10_000_000u64).map(|n| (n.wrapping_mul(n) >> 13) as u8).collect();
    fs::write(folder.0.join("big"), &big)?;
    let text = script(
        &folder,
        "",
        bus,
        "test",
        r"
        md5sum < big
        cp big copy
        cmp big copy
        seq 1 1500000 > numbers
        wc -c < numbers
        # Past what was read before, and from a place in the middle.
        dd if=big of=tail bs=1000 skip=9999 2> /dev/null
        printf MIDDLE | dd of=copy bs=1 seek=5000000 conv=notrunc 2> /dev/null
        mkdir bin && cp /bin/busybox bin && bin/busybox echo runs
        ",
    )?;
    let sum = std::process::Command::new("md5sum").arg(folder.0.join("big")).output()?.stdout;
    let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or("").to_string();
    ensure!(text == format!("{sum}  -\n10888896\nruns\n"), "{text}");
    let mut copy = big.clone();
    copy[5_000_000..5_000_006].copy_from_slice(b"MIDDLE");
    ensure!(folder.read("copy")? == copy, "the copy differs on the host");
    ensure!(folder.read("tail")? == big[9_999_000..], "the tail differs");
    let numbers: String = (1..=1_500_000).map(|n| format!("{n}\n")).collect();
    ensure!(folder.read("numbers")? == numbers.as_bytes(), "the numbers differ on the host");
    Ok(())
}

fn names() -> Result<()> {
    let folder = Folder::new("names")?;
    fs::create_dir(folder.0.join("many"))?;
    for index in 0..1000 {
        fs::write(folder.0.join(format!("many/a name of some length {index}")), b"")?;
    }
    let text = script(
        &folder,
        "",
        Bus::Mmio,
        "test",
        r"
        ls many | wc -l
        ls many | sort -u | wc -l
        mkdir -p d/e
        echo one > d/e/file
        mv d/e moved
        ln moved/file hard
        ln -s moved/file soft
        cat soft
        stat -c '%h %s %F' hard
        echo two >> hard
        chmod 640 hard
        touch -d @1000000000 hard
        stat -c '%a %Y %s' moved/file
        truncate -s 5 hard
        cat moved/file; echo
        # Exclusive creation of what is there; removal of what is not empty; a file that is open.
        (set -C; : > hard) 2> /dev/null || echo exists
        rmdir moved 2> /dev/null || echo not empty
        exec 3<> moved/file; rm moved/file hard; echo more >&3; cat moved/file 2> /dev/null || echo gone
        exec 3>&-
        rmdir moved d
        rm -r many
        ls -A
        pwd; mkdir sub; cd sub; mv ../sub ../renamed; pwd -P
        ",
    )?;
    let expected = "1000
1000
one
2 4 regular file
640 1000000000 8
one
t
exists
not empty
gone
soft
/mnt/host
/mnt/host/renamed
";
    ensure!(text == expected, "{text}");
    ensure!(fs::read_link(folder.0.join("soft"))? == Path::new("moved/file"), "the link is no link on the host");
    ensure!(folder.0.join("renamed").is_dir() && !folder.0.join("many").exists(), "names differ on the host");
    Ok(())
}

fn host_changes() -> Result<()> {
    let folder = Folder::new("changes")?;
    fs::write(folder.0.join("file"), "old")?;
    let path = folder.0.clone();
    let host = thread::spawn(move || -> Result<()> {
        let start = Instant::now();
        while !path.join("ready").exists() {
            ensure!(start.elapsed() < Duration::from_secs(110), "the guest never said that it was ready");
            thread::sleep(Duration::from_millis(20));
        }
        fs::write(path.join("file"), "new content")?;
        fs::remove_file(path.join("removed"))?;
        fs::create_dir(path.join("dir"))?;
        fs::rename(path.join("first"), path.join("second"))?;
        fs::write(path.join("go"), "")?;
        Ok(())
    });
    let text = script(
        &folder,
        "",
        Bus::Mmio,
        "test",
        r"
        exec 3< file
        cat file; echo
        touch removed first
        ls go dir 2> /dev/null || true
        touch ready
        until [ -e go ]; do sleep 0.05; done
        cat file; echo
        cat <&3; echo
        stat -c %s file
        [ -e removed ] || [ -e first ] || [ ! -d dir ] || [ ! -f second ] || echo names changed
        ",
    );
    host.join().map_err(|_| anyhow::anyhow!("the host's part panicked"))??;
    let text = text?;
    ensure!(text == "old\nnew content\nnew content\n11\nnames changed\n", "{text}");
    Ok(())
}

fn read_only() -> Result<()> {
    let folder = Folder::new("reading")?;
    fs::write(folder.0.join("file"), "content")?;
    let text = script(
        &folder,
        ":ro",
        Bus::Mmio,
        "test",
        r#"
        cat file; echo
        for change in 'touch new' 'rm file' 'mkdir dir' 'chmod 777 file' 'echo > file'; do
            sh -c "$change" 2>&1 | grep -q 'Read-only file system' && echo refused
        done
        mount -o remount,rw /mnt/host
        touch new 2> /dev/null || echo the host refuses, too
        "#,
    )?;
    ensure!(text == format!("content\n{}the host refuses, too\n", "refused\n".repeat(5)), "{text}");
    ensure!(fs::read_dir(&folder.0)?.count() == 1 && folder.read("file")? == b"content", "the folder has changed");
    Ok(())
}

fn git() -> Result<()> {
    let folder = Folder::new("git")?;
    let text = script(
        &folder,
        "",
        Bus::Mmio,
        "git",
        r"
        export HOME=/root GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
        git config --global user.name Somebody; git config --global user.email some@body
        git config --global safe.directory '*'
        git init -q -b main repo; cd repo
        for i in $(seq 1 200); do echo $i > file$i; done
        git add . && git commit -q -m first
        echo changed > file7; git rm -q file9; git commit -q -a -m second
        git gc -q && git fsck --full
        git status --short | wc -l
        git log --format=%s
        git ls-files | wc -l
        git rev-parse HEAD
        ",
    )?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 5 && lines[..4] == ["0", "second", "first", "199"], "{text}");
    // The host's git, if there is one, finds the same.
    let host = std::process::Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(folder.0.join("repo"))
        .args(["status", "--short", "--branch"])
        .output();
    if let Ok(host) = host {
        let status = String::from_utf8_lossy(&host.stdout).into_owned();
        ensure!(host.status.success() && status == "## main\n", "on the host: {status}");
    }
    Ok(())
}
