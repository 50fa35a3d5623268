//! pselect6(2).

use libc::*;

use super::NOW;
use crate::file::{close, create, pipe, read, write};
use crate::sys::{NOWHERE, sys};
use crate::{process, say};

fn set_of(fds: &[i32]) -> [u64; 16] {
    let mut set = [0u64; 16];
    for fd in fds {
        set[*fd as usize / 64] |= 1 << (*fd % 64);
    }
    set
}

pub(super) fn select_sets() {
    let [reader, writer] = pipe();
    let [reader2, writer2] = pipe();
    write(writer, "x");
    let (mut read_set, mut write_set) = (set_of(&[reader, reader2]), set_of(&[writer, writer2]));
    let mut except = set_of(&[reader]);
    let ret = sys!(SYS_pselect6, 10, &mut read_set, &mut write_set, &mut except, &NOW, 0);
    say!("ready: {ret} read {:#x} write {:#x} except {:#x}", read_set[0], write_set[0], except[0]);
    let mut read_set = set_of(&[reader, reader2]);
    say!("only the low ones: {} {:#x}", sys!(SYS_pselect6, reader, &mut read_set, 0, 0, &NOW, 0), read_set[0]);
    close(writer2);
    let mut read_set = set_of(&[reader2]);
    say!("hung up: {} {:#x}", sys!(SYS_pselect6, 10, &mut read_set, 0, 0, &NOW, 0), read_set[0]);
    close(reader);
    let (mut write_set, mut except) = (set_of(&[writer]), set_of(&[writer]));
    say!(
        "nobody reads: {} {:#x} {:#x}",
        sys!(SYS_pselect6, 10, 0, &mut write_set, &mut except, &NOW, 0),
        write_set[0],
        { except[0] }
    );
    let file = create(c"f", "");
    let high = sys!(SYS_fcntl, file, F_DUPFD, 300).fd();
    let mut read_set = set_of(&[high]);
    say!("a high one: {} {}", sys!(SYS_pselect6, high + 1, &mut read_set, 0, 0, &NOW, 0), read_set == set_of(&[high]));
}

pub(super) fn select_refused() {
    let mut set = set_of(&[60]);
    say!("closed: {}", sys!(SYS_pselect6, 61, &mut set, 0, 0, &NOW, 0));
    say!("negative count: {}", sys!(SYS_pselect6, -1, 0, 0, 0, &NOW, 0));
    say!("a huge count: {}", sys!(SYS_pselect6, 1 << 30, 0, 0, 0, &NOW, 0));
    say!("bad set: {}", sys!(SYS_pselect6, 10, NOWHERE, 0, 0, &NOW, 0));
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    say!("bad time: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &bad, 0));
    say!("bad pointer to the time: {}", sys!(SYS_pselect6, 0, 0, 0, 0, NOWHERE, 0));
    let none = 0u64;
    let pair = [std::ptr::from_ref(&none) as usize, 4];
    say!("size of the mask: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &NOW, &pair));
    say!("bad pointer to the mask: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &NOW, NOWHERE));
}

pub(super) fn select_waits() {
    let [reader, writer] = pipe();
    let child = process::child(|| {
        let mut set = set_of(&[reader]);
        let ret = sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, 0, 0);
        say!("woken: {ret} {}", set == set_of(&[reader]));
        0
    });
    process::until_asleep(child);
    write(writer, "x");
    process::wait(child);
    read(reader, 1);
    let mut time = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let mut set = set_of(&[reader]);
    say!("in vain: {} {:#x}", sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, &mut time, 0), set[0]);
    say!("the time is used up: {} {}", time.tv_sec, time.tv_nsec);
}
