//! What can be run, and what cannot.

use libc::*;

use super::{c, counting_program, exec_with, program, refused, small, write_file};
use crate::process::{as_user, in_child};
use crate::sys::sys;
use crate::{file, say};

pub(super) fn not_programs() {
    for (name, contents) in
        [("empty", &b""[..]), ("text", b"echo hello\n"), ("ELF's first letters", b"\x7fELF"), ("zeros", &[0; 200])]
    {
        write_file(c"f", contents, 0o755);
        say!("{name}: {}", refused(c"./f"));
    }
    say!("a directory: {}", refused(c"."));
    say!("a device: {}", refused(c"/dev/null"));
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o755, 0);
    say!("a fifo: {}", refused(c"fifo"));
    sys!(SYS_mknodat, AT_FDCWD, c"socket", S_IFSOCK | 0o755, 0);
    say!("a socket: {}", refused(c"socket"));
    say!("a link of /proc to a pipe: {}", refused(&c(&format!("/proc/self/fd/{}", file::pipe()[0]))));
}

pub(super) fn not_permitted() {
    sys!(SYS_mkdirat, AT_FDCWD, c"locked", 0o700);
    write_file(c"locked/f", &small(), 0o755);
    for (name, mode) in [
        ("nobody's", 0o644),
        ("others'", 0o001),
        ("the owner's", 0o100),
        ("the group's", 0o010),
        ("all but read", 0o111),
    ] {
        write_file(c"f", &small(), mode);
        let root = refused(c"./f");
        as_user(1000, || {
            say!("{name}, mode {mode:o}: root {root}, a user {}", refused(c"./f"));
            0
        });
    }
    as_user(1000, || {
        say!("in a locked directory: {}", refused(c"locked/f"));
        0
    });
    write_file(c"g", &small(), 0o654);
    sys!(SYS_fchownat, AT_FDCWD, c"g", 1000, 1000, 0);
    as_user(1000, || {
        say!("the owner's lack of a right counts: {}", refused(c"./g"));
        0
    });
}

pub(super) fn small_program() {
    write_file(c"f", &small(), 0o755);
    say!("{}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // Registers at the start: x0 is 0.
    write_file(c"f", &program(&[0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("x0 at the start: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // and x0, sp, #15
    write_file(c"f", &program(&[0x9100_03e1, 0x9240_0c20, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("the stack pointer's last bits: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    write_file(c"f", &counting_program(), 0o755);
    say!("argc: {}", in_child(|| exec_with(c"./f", &[c"f", c"g", c"h"], &[]).errno()));
    // mov x0, x30 and x29, which must be zero.
    write_file(c"f", &program(&[0xaa1d_03c0, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("frame and link: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // fmov x0, d31
    write_file(c"f", &program(&[0x9e66_03e0, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("a vector register: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
}

pub(super) fn broken_headers() {
    let with = |changes: &[(usize, &[u8])]| {
        let mut bytes = small();
        for (at, value) in changes {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        write_file(c"f", &bytes, 0o755);
        refused(c"./f")
    };
    say!("another first letter: {}", with(&[(0, b"\x7e")]));
    say!("type 1: {}", with(&[(16, &[1])]));
    say!("type 4: {}", with(&[(16, &[4])]));
    say!("another machine: {}", with(&[(18, &[62])]));
    say!("program headers of another size: {}", with(&[(54, &[55])]));
    say!("no program headers: {}", with(&[(56, &[0])]));
    say!("too many program headers: {}", with(&[(56, &[0xff, 0xff])]));
    say!("program headers after the end: {}", with(&[(32, &[0, 0, 1])]));
    say!("cut within the header: {}", {
        write_file(c"f", &small()[..63], 0o755);
        refused(c"./f")
    });
    say!("cut within the program headers: {}", {
        write_file(c"f", &small()[..100], 0o755);
        refused(c"./f")
    });
}

pub(super) fn interpreter_missing() {
    // PT_INTERP in the place of the code, before the segment.
    let with = |name: &[u8], size: u64| {
        let mut bytes = small();
        bytes[56] = 2;
        let mut header = Vec::new();
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&4u32.to_le_bytes());
        for value in [0x200u64, 0x40_0200, 0x40_0200, size, size, 1] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        bytes.splice(120..120, header);
        bytes.resize(0x200, 0);
        bytes.extend_from_slice(name);
        write_file(c"f", &bytes, 0o755);
        refused(c"./f")
    };
    say!("not there: {}", with(b"/nowhere\0", 9));
    say!("a directory: {}", with(b"/bin\0", 5));
    say!("text: {}", {
        write_file(c"text", b"hello, this is no program and long enough to be looked at as a header of one.", 0o755);
        with(b"./text\0", 7)
    });
    say!("not to be run: {}", {
        write_file(c"locked", b"x", 0o644);
        with(b"./locked\0", 9)
    });
    say!("a name without an end: {}", with(b"/nowhere", 8));
    say!("a name of one: {}", with(b"\0", 1));
    say!("too long a name: {}", with(b"/nowhere\0", 5000));
}
