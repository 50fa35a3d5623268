//! MS_SYNCHRONOUS and MS_DIRSYNC (mount(2)): what is changed on a small ext2 is looked for behind it, in the file of its loop device.

use std::ffi::CStr;

use libc::*;

use super::loops::{NODE, SET_FD, device, end};
use crate::file::{close, create, link, mkdir, open, path, rename, symlink, unlink, write};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { mounted_so, by_remount, by_option }

const BLOCK: usize = 1024;
const BLOCKS: u32 = 64;

fn put(image: &mut [u8], at: usize, words: &[u32]) {
    for (bytes, word) in image[at..].chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// An ext2 of revision 0 with 64 blocks of 1 KiB, 16 inodes and nothing in it: superblock, descriptor of the group, bitmaps of
/// blocks and inodes, two blocks of inodes, root directory.
pub(super) fn image() -> Vec<u8> {
    let mut image = vec![0u8; BLOCKS as usize * BLOCK];
    let (free_blocks, free_inodes) = (BLOCKS - 1 - 7, 6);
    put(&mut image, BLOCK, &[16, BLOCKS, 0, free_blocks, free_inodes, 1, 0, 0, 8192, 8192, 16, 0, 0, 0xffff << 16]);
    put(&mut image, BLOCK + 56, &[1 << 16 | 0xef53, 1]);
    put(&mut image, 2 * BLOCK, &[3, 4, 5, free_inodes << 16 | free_blocks, 1]);
    image[3 * BLOCK..5 * BLOCK].fill(0xff);
    image[3 * BLOCK..3 * BLOCK + 8].copy_from_slice(&[0x7f, 0, 0, 0, 0, 0, 0, 0x80]);
    image[4 * BLOCK + 1] = 0x03;
    // Inode 2: mode, size, times, links, sectors, block.
    put(&mut image, 5 * BLOCK + 128, &[0o40_755, BLOCK as u32, 1, 1, 1, 0, 2 << 16, 2, 0, 0, 7]);
    put(&mut image, 7 * BLOCK, &[2, 1 << 16 | 12, u32::from(b'.'), 2, 2 << 16 | (BLOCK as u32 - 12), 0x2e2e]);
    image
}

/// The file system, mounted at `m`; its device has a file in memory.
struct Small(i32);

impl Small {
    fn mount(flags: u64, data: &CStr) -> Small {
        mkdir(c"tmp");
        mkdir(c"m");
        sys!(SYS_mount, c"none", c"tmp", c"tmpfs", 0, 0).need();
        let backing = create(c"tmp/image", "");
        let image = image();
        sys!(SYS_write, backing, &image[..], image.len()).need();
        let loop_device = device(O_RDWR);
        sys!(SYS_ioctl, loop_device, SET_FD, backing).need();
        close(backing);
        say!("mount: {}", sys!(SYS_mount, NODE, c"m", c"ext2", flags, data));
        Small(loop_device)
    }

    fn remount(&self, flags: u64, data: &CStr) -> Ret {
        sys!(SYS_mount, c"none", c"m", c"none", MS_REMOUNT | flags, data)
    }

    fn end(self) {
        say!("unmount: {}", sys!(SYS_umount2, c"m", 0));
        end(self.0);
        sys!(SYS_umount2, c"tmp", 0).need();
    }
}

/// Is this text on the device?
fn stored(text: &str) -> bool {
    std::fs::read("tmp/image").is_ok_and(|image| image.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// What the mount is shown as.
fn options() -> String {
    let list = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let line = list.lines().find(|line| line.split(' ').nth(1).is_some_and(|place| place.ends_with("/m")));
    let all = line.and_then(|line| line.split(' ').nth(3)).unwrap_or("?");
    all.split(',').filter(|word| word.ends_with("sync")).collect::<Vec<_>>().join(",")
}

/// Makes changes with a mark in what they leave on the device.
fn changes(mark: &str) {
    say!("options: {:?}", options());
    let name = |what: &str| format!("{what}-{mark}");
    let at = |what: &str| path(format!("m/{}", name(what)));
    let fd = create(&at("file"), "");
    say!("the name of a file: {}", stored(&name("file")));
    let ret = write(fd, &name("words"));
    say!("what is written: {}, {}", ret.ok(), stored(&name("words")));
    close(fd);
    mkdir(&at("directory"));
    say!("a directory: {}", stored(&name("directory")));
    symlink(c"target", &at("symlink"));
    say!("a symbolic link: {}", stored(&name("symlink")));
    link(&at("file"), &at("other"));
    say!("a link: {}", stored(&name("other")));
    rename(&at("other"), &at("renamed"), 0);
    say!("a rename: {}", stored(&name("renamed")));
    for what in ["file", "renamed", "symlink"] {
        unlink(&at(what));
    }
    sys!(SYS_unlinkat, AT_FDCWD, at("directory").as_c_str(), AT_REMOVEDIR).need();
    let fd = open(c"m", O_RDONLY).fd();
    say!("stored: {}", sys!(SYS_syncfs, fd));
    close(fd);
}

fn mounted_so() {
    for (mark, flags) in
        [("none", 0), ("sync", MS_SYNCHRONOUS), ("dirsync", MS_DIRSYNC), ("both", MS_SYNCHRONOUS | MS_DIRSYNC)]
    {
        let small = Small::mount(flags, c"");
        changes(mark);
        small.end();
    }
}

fn by_remount() {
    let small = Small::mount(0, c"");
    for (mark, flags, data) in [
        ("sync", MS_SYNCHRONOUS, c""),
        ("neither", 0, c""),
        ("dirsync", MS_DIRSYNC, c""),
        ("named", 0, c"sync"),
        ("named-not", MS_SYNCHRONOUS, c"async"),
        ("named-dirsync", 0, c"dirsync"),
        ("after", 0, c""),
    ] {
        say!("{mark}: {}", small.remount(flags, data));
        changes(mark);
    }
    small.end();
}

fn by_option() {
    for (mark, data) in
        [("sync", c"sync"), ("dirsync", c"dirsync"), ("async", c"sync,async"), ("both", c"dirsync,sync")]
    {
        let small = Small::mount(0, data);
        changes(mark);
        small.end();
    }
}
