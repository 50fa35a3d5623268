//! What is written stays, and the file system is sound.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{Console, lab, run_on};
use xtask::image::Image;
use xtask::machine::{Bus, Machine, MachineOptions};
use xtask::provision::E2FSCK;
use xtask::{power_cut, ui};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("disk::files_are_there_in_the_next_boot", next_boot),
        trial("disk::a_busy_file_system_is_clean", || busy(Bus::Mmio)),
        trial("disk::a_busy_file_system_is_clean_on_pci", || busy(Bus::Pci)),
        trial("disk::a_full_file_system_says_so", full),
        trial("disk::what_was_synced_survives_a_pulled_plug", plug),
        trial("disk::who_waits_for_a_disk_can_be_killed", slow),
        trial("disk::snapshots_leave_the_image_alone", snapshot),
    ]
}

/// The disk takes minutes for a block.
fn slow() -> Result<()> {
    let image = lab::copy_of("test", "slow")?;
    let disk =
        format!("-drive if=none,id=slow,format=raw,snapshot=on,throttling.bps-total=16,file={}", image.display());
    let qemu = format!("{disk} -device virtio-blk-pci,drive=slow");
    let options = MachineOptions { qemu, bus: Bus::Pci, ..lab::options() };
    let machine = lab::machine(&options, "test")?;
    let killed = "sleep 1; kill -9 $!; wait $!; echo $?";
    let script = format!("cat /dev/vdb > /dev/null & {killed}");
    let text = lab::text_of(run_on(&machine, &["sh", "-c", &script], b"", Duration::from_secs(60))?)?;
    ensure!(text.lines().filter(|line| *line == "137").count() == 1, "{text:?}");
    Ok(())
}

/// `e2fsck -fn` finds nothing to repair, nor an unclean end.
fn is_clean(image: &Path) -> Result<()> {
    let output = Command::new(E2FSCK.path()?).arg("-fn").arg(image).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "e2fsck: {}\n{text}", output.status);
    let state = Command::new("dumpe2fs").arg("-h").arg(image).output();
    if let Ok(state) = state {
        let text = String::from_utf8_lossy(&state.stdout).into_owned();
        ensure!(
            text.lines().any(|l| l.starts_with("Filesystem state:") && l.trim_end().ends_with(" clean")),
            "it was not unmounted: {text}"
        );
    }
    Ok(())
}

/// A machine that keeps what it writes to this image.
fn machine(image: &Path, bus: Bus) -> Result<Machine> {
    let options = MachineOptions { snapshot: false, bus, ..lab::options() };
    let image = Image { path: image.to_path_buf(), init: Some("/sbin/init".into()) };
    Machine::new(&options, lab::boot()?, image)
}

fn script(image: &Path, bus: Bus, script: &str) -> Result<String> {
    let machine = machine(image, bus)?;
    let output = run_on(&machine, &["sh", "-c", script], b"", Duration::from_secs(120))?;
    lab::text_of(output)
}

fn next_boot() -> Result<()> {
    let image = lab::copy_of("test", "next_boot")?;
    let arguments = ["--append", "init=/sbin/init"];
    let mut console = Console::boot(&image, &arguments)?;
    console.command("mkdir -p /root/a/b && seq 1 20000 > /root/a/b/numbers")?;
    console.command("ln -s b/numbers /root/a/link; ln /root/a/b/numbers /root/hard")?;
    console.command("chmod 4751 /root/hard; touch -d @1704164645 /root/a")?;
    console.type_in("sync; poweroff\r")?;
    ensure!(console.end()? == 0, "no clean end");
    is_clean(&image)?;
    let mut console = Console::boot(&image, &arguments)?;
    console.expect("md5sum < /root/a/link", "e071f707df7bbeee2a6a1eb48011ddd0")?;
    console.expect("stat -c '%A %h %s' /root/hard", "-rwsr-x--x 2 108894")?;
    console.expect("stat -c %Y /root/a", "1704164645")?;
    console.type_in("rm -r /root/a; sync; poweroff\r")?;
    ensure!(console.end()? == 0, "no clean end");
    is_clean(&image)
}

fn busy(bus: Bus) -> Result<()> {
    let image = lab::copy_of("test", &format!("busy_{bus:?}"))?;
    let text = script(
        &image,
        bus,
        r"
        cd /root
        for worker in 1 2 3 4; do (
            mkdir $worker; cd $worker
            for file in $(seq 1 60); do seq 1 $((file * 50)) > f$file; done
            for file in $(seq 1 3 60); do rm f$file; done
            for file in $(seq 2 3 60); do mv f$file renamed-$file; done
            mkdir -p deep/er/and/deep/er; cp /bin/busybox deep/er/and/deep/er/
            cat f* renamed-* > all; dd if=/dev/zero of=hole bs=1k seek=20000 count=1 2> /dev/null
            head -c 1000 all > cut; truncate -s 10 cut; ln -s all soft; ln all hard
        ) & done
        wait
        for worker in 1 2 3 4; do (cd $worker; md5sum all hole cut deep/er/and/deep/er/busybox); done |
            sort | uniq -c | sed 's/^ *//'
        ls 1 | wc -l
        ",
    )?;
    let text: Vec<_> = text.lines().collect();
    ensure!(text.len() == 5 && text[..4].iter().all(|line| line.starts_with("4 ")), "{text:?}");
    ensure!(text[4] == "46", "{text:?}");
    is_clean(&image)?;
    // What was written is what is read when nothing is cached.
    let again = script(
        &image,
        bus,
        "cd /root; for w in 1 2 3 4; do (cd $w; md5sum all hole cut deep/er/and/deep/er/busybox); done |
         sort | uniq -c | sed 's/^ *//'; rm -rf 1 2 3; ls",
    )?;
    let again: Vec<_> = again.lines().collect();
    ensure!(again.get(..4) == Some(&text[..4]), "{again:?}");
    ensure!(again.get(4) == Some(&"4"), "{again:?}");
    is_clean(&image)
}

fn full() -> Result<()> {
    let image = lab::copy_of("test", "full")?;
    let text = script(
        &image,
        Bus::Mmio,
        r"
        cd /root
        dd if=/dev/zero of=big bs=64k 2> /tmp/err; echo $?
        grep -c 'No space left on device' /tmp/err
        # What had been promised for maps and was not needed.
        sync; dd if=/dev/zero of=rest bs=1k 2> /dev/null
        echo more > small 2> /dev/null; cat small | wc -c
        rm big; echo again > small; cat small
        ",
    )?;
    ensure!(text == "1\n1\n0\nagain\n", "{text:?}");
    is_clean(&image)
}

/// `cargo xtask power-cut` does this 200 times.
fn plug() -> Result<()> {
    let image = lab::copy_of("git", "plug")?;
    let step = ui::step("Pulling the plug");
    let seen = power_cut::rounds(&lab::boot()?, &image, 1, 3, 2, Duration::from_secs(8), &step)?;
    ensure!(seen.commits > 0 && seen.files > 0, "nothing was synced in three rounds: {seen:?}");
    Ok(())
}

fn snapshot() -> Result<()> {
    let image = lab::copy_of("test", "snapshot")?;
    let before = std::fs::read(&image)?;
    let options = lab::options();
    let file = Image { path: image.clone(), init: Some("/sbin/init".into()) };
    let machine = Machine::new(&options, lab::boot()?, file)?;
    let argv = ["sh", "-c", "echo lost > /root/file; sync; cat /root/file"];
    let output = run_on(&machine, &argv, b"", Duration::from_secs(60))?;
    ensure!(lab::text_of(output)? == "lost\n", "it cannot be written");
    let after = std::fs::read(&image).context("the image is gone")?;
    ensure!(before == after, "the image has changed");
    Ok(())
}
