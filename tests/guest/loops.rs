//! File systems in files: mounted through a loop device, written, and sound afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{lab, run_on};
use xtask::image::Image;
use xtask::machine::{Machine, MachineOptions};
use xtask::provision::{DEBUGFS, E2FSCK, MKE2FS, Tool};

use crate::trial;

/// File systems, by what mke2fs makes them of.
const INNER: [(&str, &[&str]); 4] = [
    ("ext2", &["-t", "ext2"]),
    ("ext3", &["-t", "ext3"]),
    ("ext4", &["-t", "ext4"]),
    ("ext4-plain", &["-t", "ext4", "-O", "^has_journal,^metadata_csum"]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("loops::file_systems_in_files_are_written_and_sound", || sound(true)),
        trial("loops::what_is_mounted_at_power_off_is_sound", || sound(false)),
        trial("loops::writes_go_on_when_memory_is_short", short),
        trial("loops::a_device_is_mounted_while_it_is_unmounted", taken_up),
        trial("loops::a_full_file_behind_a_loop_device_is_an_error", full),
    ]
}

fn call(tool: &Tool, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool.path()?).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A new file system of so many MiB.
fn make(file: &Path, size: u64, arguments: &[&str]) -> Result<()> {
    std::fs::File::create(file)?.set_len(size << 20)?;
    call(&MKE2FS, &[&["-q", "-F"], arguments, &[text(file).as_str()]].concat()).map(drop)
}

/// Copies a file into an image, holes as holes.
fn put(file: &Path, inside: &str, image: &Path) -> Result<()> {
    call(&DEBUGFS, &["-w", "-R", &format!("write {} {inside}", text(file)), &text(image)]).map(drop)
}

/// An image with all the inner file systems in /root.
fn image(test: &str) -> Result<(PathBuf, Vec<(PathBuf, &'static str)>)> {
    let image = lab::copy_of("test", test)?;
    let mut inner = Vec::new();
    for (name, arguments) in INNER {
        let file = image.with_extension(format!("inner-{name}"));
        make(&file, 16, arguments)?;
        put(&file, &format!("/root/{name}.img"), &image)?;
        inner.push((file, name));
    }
    Ok((image, inner))
}

fn check(image: &Path) -> Result<()> {
    let output = Command::new(E2FSCK.path()?).arg("-fn").arg(image).output()?;
    ensure!(output.status.success(), "{}: {}", image.display(), String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// An image and the file system in its /root/inner.img, which is copied to `inner`, are sound; then they can go.
fn check_both(image: PathBuf, inner: PathBuf) -> Result<()> {
    check(&image)?;
    call(&DEBUGFS, &["-R", &format!("dump /root/inner.img {}", text(&inner)), &text(&image)])?;
    check(&inner)?;
    for file in [image, inner] {
        std::fs::remove_file(file)?;
    }
    Ok(())
}

fn run(image: &Path, script: &str) -> Result<String> {
    run_with(lab::options(), image, script)
}

fn run_with(options: MachineOptions, image: &Path, script: &str) -> Result<String> {
    let options = MachineOptions { snapshot: false, ..options };
    let disk = Image { path: image.to_path_buf(), init: Some("/sbin/init".into()) };
    let machine = Machine::new(&options, lab::boot()?, disk)?;
    lab::text_of(run_on(&machine, &["sh", "-c", script], b"", Duration::from_secs(180))?)
}

fn sound(unmounts: bool) -> Result<()> {
    let (image, inner) = image(if unmounts { "loops" } else { "loops_left" })?;
    let names: Vec<_> = inner.iter().map(|(_, name)| *name).collect();
    let end = if unmounts { "umount /mnt/$fs" } else { "sync" };
    let script = format!(
        r"
        cd /root
        for fs in {}; do
            mkdir -p /mnt/$fs; mount -o loop $fs.img /mnt/$fs || echo cannot mount $fs
            grep -c /mnt/$fs /proc/mounts
            mkdir /mnt/$fs/a; cp /bin/busybox /mnt/$fs/a/; seq 1 30000 > /mnt/$fs/a/numbers
            for file in $(seq 1 200); do echo $file > /mnt/$fs/a/f$file; done
            for file in $(seq 1 3 200); do rm /mnt/$fs/a/f$file; done
            ln -s a/numbers /mnt/$fs/link; truncate -s 100000 /mnt/$fs/a/numbers
            cmp /bin/busybox /mnt/$fs/a/busybox && ls /mnt/$fs/a | wc -l
            {end}
        done
        losetup -a | wc -l
        ",
        names.join(" ")
    );
    let said = run(&image, &script)?;
    let left = if unmounts { 0 } else { names.len() };
    let expected = format!("{}{left}\n", "1\n135\n".repeat(names.len()));
    ensure!(said == expected, "{said:?} instead of {expected:?}");
    check(&image)?;
    for (file, name) in inner {
        std::fs::remove_file(&file)?;
        call(&DEBUGFS, &["-R", &format!("dump /root/{name}.img {}", text(&file)), &text(&image)])?;
        check(&file)?;
        let listed = call(&DEBUGFS, &["-R", "ls -p /a", &text(&file)])?;
        // An entry without an inode is free space.
        let lines = listed.lines().filter(|line| line.contains("/f") && !line.starts_with("/0/")).count();
        ensure!(lines == 133, "{name}: {lines} files");
        std::fs::remove_file(file)?;
    }
    std::fs::remove_file(image)?;
    Ok(())
}

/// Whoever mounts a device that another is just unmounting can write to it, and nothing is lost.
fn taken_up() -> Result<()> {
    let image = lab::copy_of("test", "loops_taken_up")?;
    let inner = image.with_extension("inner");
    make(&inner, 4, &["-t", "ext2"])?;
    put(&inner, "/root/inner.img", &image)?;
    let said = run(
        &image,
        r"
        losetup /dev/loop5 /root/inner.img; mkdir /mnt/a /mnt/b
        for side in a b; do
            (for turn in $(seq 1 80); do
                mount -t ext2 /dev/loop5 /mnt/$side 2>&1 || echo no mount
                echo $turn > /mnt/$side/of_$side || echo not written
                umount /mnt/$side 2>&1 || echo still mounted
            done) &
        done
        wait
        mount -t ext2 -o ro /dev/loop5 /mnt/a; cat /mnt/a/of_a /mnt/a/of_b; umount /mnt/a
        losetup -d /dev/loop5; sync
        ",
    )?;
    ensure!(said == "80\n80\n", "{said:?}");
    check_both(image, inner)
}

/// Several programs write to a file system in a file, and one beside it to that file, in a machine whose memory is nearly
/// all taken: what is stored needs pages of the file, while those who hold its lock wait for memory.
fn short() -> Result<()> {
    let image = lab::copy_of("test", "loops_short")?;
    let inner = image.with_extension("inner");
    make(&inner, 32, &["-t", "ext2"])?;
    put(&inner, "/root/inner.img", &image)?;
    let options = MachineOptions { mem: "64M".into(), ..lab::options() };
    let said = run_with(
        options,
        &image,
        r"
        mkdir /mnt/inner /mnt/hog; cd /root
        mount -o loop inner.img /mnt/inner; echo mounted $?
        mount -t tmpfs -o size=100% hog /mnt/hog
        free=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
        dd if=/dev/zero of=/mnt/hog/file bs=1k count=$((free - 16000)) 2> /dev/null; echo taken $?
        for file in 1 2 3; do
            (yes $file$file$file | head -c 6000000 > /mnt/inner/f$file) &
        done
        (dd if=/dev/zero of=inner.img bs=64k seek=512 count=100 conv=notrunc 2> /dev/null) &
        wait; sync; rm /mnt/hog/file; echo 3 > /proc/sys/vm/drop_caches
        for file in 1 2 3; do
            yes $file$file$file | head -c 6000000 | cmp - /mnt/inner/f$file && echo $file
        done
        umount /mnt/inner; echo $?
        ",
    )?;
    ensure!(said == "mounted 0\ntaken 0\n1\n2\n3\n0\n", "{said:?}");
    check_both(image, inner)
}

/// A file system of 16 MiB in a file with holes, on one of 6 MiB that is in a file itself.
fn full() -> Result<()> {
    let image = lab::copy_of("test", "loops_full")?;
    let (outer, inner) = (image.with_extension("outer"), image.with_extension("inner"));
    make(&outer, 6, &["-t", "ext2"])?;
    make(&inner, 16, &["-t", "ext2"])?;
    put(&inner, "inner.img", &outer)?;
    put(&outer, "/root/outer.img", &image)?;
    let said = run(
        &image,
        r"
        mkdir /mnt/outer /mnt/inner
        mount -o loop /root/outer.img /mnt/outer; echo mounted $?
        mount -o loop /mnt/outer/inner.img /mnt/inner; echo mounted $?
        dd if=/dev/zero of=/mnt/inner/small bs=1M count=2 conv=fsync 2> /dev/null; echo written $?
        dd if=/dev/zero of=/mnt/inner/big bs=1M count=12 conv=fsync 2> /dev/null; echo written $?
        umount /mnt/outer 2> /dev/null; echo busy $?
        umount /mnt/inner; umount /mnt/outer; echo $?; losetup -a
        ",
    )?;
    ensure!(said == "mounted 0\nmounted 0\nwritten 0\nwritten 1\nbusy 1\n0\n", "{said:?}");
    check(&image)?;
    for file in [image, outer, inner] {
        std::fs::remove_file(file)?;
    }
    Ok(())
}
