//! Mappings of files, and memfd_create(2).

use libc::*;

use super::{RW, memfd, page, protect, text, unmap};
use crate::file::{self, close, contents, create};
use crate::memory::{PAGE, map, peek, poke, try_peek};
use crate::process::{self, Gate};
use crate::say;
use crate::sys::sys;

pub(super) fn file_private() {
    let fd = create(c"f", "original contents");
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("{:?}", text(memory, 17));
    poke(memory, b'O');
    say!("after a write to memory: {:?}, the file {}", text(memory, 8), contents(c"f"));
    sys!(SYS_pwrite64, fd, "ORIG", 4, 0);
    say!("after a write to the file: {:?}", text(memory, 8));
    let fresh = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("another mapping: {:?}", text(fresh, 8));
}

pub(super) fn file_shared() {
    let fd = create(c"f", "original contents");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, b'O');
    say!("the file: {}", contents(c"f"));
    sys!(SYS_pwrite64, fd, "RIG", 3, 1);
    say!("memory: {:?}", text(memory, 8));
    let other = map(PAGE, PROT_READ, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory.wrapping_add(9), b'C');
    say!("another mapping: {:?}", text(other, 17));
    poke(memory.wrapping_add(100), b'x');
    say!("a write behind the end: {}", contents(c"f"));
}

pub(super) fn file_end() {
    let fd = create(c"f", "five!");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("the rest of the last page: {} {}", peek(memory.wrapping_add(5)), peek(memory.wrapping_add(4095)));
    say!("the page after it: {}", try_peek(page(memory, 1)));
    let empty = create(c"empty", "");
    let memory = map(PAGE, RW, MAP_SHARED, empty, 0).need() as *mut u8;
    say!("an empty file: {}", try_peek(memory));
    say!("an offset behind the end: {}", map(PAGE, RW, MAP_SHARED, fd, 1 << 20).ok_or_error());
}

pub(super) fn file_truncated_under_mapping() {
    let fd = create(c"f", &"x".repeat(3 * PAGE));
    let shared = map(3 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    let private = map(3 * PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    (0..3).for_each(|number| poke(page(private, number), b'p'));
    (0..3).for_each(|number| assert!(peek(page(shared, number)) == b'x'));
    sys!(SYS_ftruncate, fd, PAGE + 10);
    say!("within: {:?}", text(page(shared, 1), 10));
    say!("the tail of the last page: {}", peek(page(shared, 1).wrapping_add(10)));
    say!("beyond, shared: {}", try_peek(page(shared, 2)));
    say!("beyond, a private copy: {}", try_peek(page(private, 2)));
    say!("within, a private copy: {}", try_peek(page(private, 1)));
}

pub(super) fn file_grown_under_mapping() {
    let fd = create(c"f", "x");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory.wrapping_add(3), b'!');
    sys!(SYS_ftruncate, fd, 2 * PAGE);
    say!("now there: {}", try_peek(page(memory, 1)));
    poke(page(memory, 1), b'y');
    say!("what was written behind the end: {}", file::read_at(fd, 5, 0));
    say!("the file: {}", file::read_at(fd, 2, PAGE as i64));
}

pub(super) fn file_offset() {
    let fd = create(c"f", &("a".repeat(PAGE) + &"b".repeat(PAGE)));
    let memory = map(PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE as i64).need() as *mut u8;
    say!("the second page: {:?}", text(memory, 3));
    say!("not a multiple of the page: {}", map(PAGE, PROT_READ, MAP_PRIVATE, fd, 512));
    say!("negative: {}", map(PAGE, PROT_READ, MAP_PRIVATE, fd, -4096));
    say!("length 0: {}", map(0, PROT_READ, MAP_PRIVATE, fd, 0));
    say!("neither shared nor private: {}", map(PAGE, PROT_READ, 0, fd, 0));
    say!("validated: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0).ok_or_error());
    say!("validated, unknown flag: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 25, fd, 0));
    say!("a size of huge pages: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 27, fd, 0).ok_or_error());
    say!("huge: {}", map(usize::MAX & !4095, PROT_READ, MAP_PRIVATE, fd, 0));
}

pub(super) fn file_closed_after_mapping() {
    let fd = create(c"f", "still there");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    close(fd);
    say!("{:?}", text(memory, 11));
    poke(memory, b'S');
    say!("{}", contents(c"f"));
}

pub(super) fn mapping_outlives_unlink() {
    let fd = create(c"f", "without a name");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    close(fd);
    say!("unlink: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f", 0));
    poke(memory, b'W');
    say!("{:?}", text(memory, 14));
}

pub(super) fn write_through_read_only_descriptor() {
    close(create(c"f", "contents"));
    let fd = file::open(c"f", O_RDONLY).fd();
    say!("shared, to write: {}", map(PAGE, RW, MAP_SHARED, fd, 0));
    let memory = map(PAGE, PROT_READ, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("made writable later: {}", protect(memory, PAGE, RW));
    let private = map(PAGE, PROT_READ, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("a private one: {}", protect(private, PAGE, RW));
    let writer = file::open(c"f", O_WRONLY).fd();
    say!("from a descriptor only to write: {}", map(PAGE, PROT_WRITE, MAP_SHARED, writer, 0));
}

pub(super) fn zero_device() {
    let fd = file::open(c"/dev/zero", O_RDWR).fd();
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("private: {}", peek(memory));
    poke(memory, 5);
    let shared = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    process::in_child(|| {
        poke(shared, 6);
        poke(memory, 6);
        0
    });
    say!("after a child's writes: private {}, shared {}", peek(memory), peek(shared));
}

pub(super) fn zero_device_as_opened() {
    for (name, flags) in [("reading", O_RDONLY), ("writing", O_WRONLY), ("both", O_RDWR)] {
        let fd = file::open(c"/dev/zero", flags).fd();
        let try_map = |prot, shared| match map(PAGE, prot, shared, fd, 0) {
            mapped if mapped.ok() => "mapped".into(),
            refused => refused.to_string(),
        };
        let (private, shared) = (try_map(RW, MAP_PRIVATE), try_map(PROT_READ, MAP_SHARED));
        say!("{name}: private {private}, shared {shared}, to be written {}", try_map(RW, MAP_SHARED));
        let memory = map(PAGE, PROT_READ, MAP_SHARED, fd, 0);
        if memory.ok() {
            say!("mprotect: {}", sys!(SYS_mprotect, memory.0, PAGE, RW));
        }
    }
}

pub(super) fn sync_pages() {
    let fd = create(c"f", "contents");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, b'C');
    say!("MS_SYNC: {}", sys!(SYS_msync, memory, PAGE, MS_SYNC));
    say!("MS_ASYNC | MS_INVALIDATE: {}", sys!(SYS_msync, memory, PAGE, MS_ASYNC | MS_INVALIDATE));
    say!("both: {}", sys!(SYS_msync, memory, PAGE, MS_SYNC | MS_ASYNC));
    say!("none: {}", sys!(SYS_msync, memory, PAGE, 0));
    say!("unknown: {}", sys!(SYS_msync, memory, PAGE, 8));
    say!("not aligned: {}", sys!(SYS_msync, memory as usize + 1, PAGE, MS_SYNC));
    unmap(page(memory, 1), PAGE);
    say!("over a hole: {}", sys!(SYS_msync, memory, 2 * PAGE, MS_SYNC));
    sys!(SYS_mlock, memory, PAGE);
    say!("MS_INVALIDATE of locked pages: {}", sys!(SYS_msync, memory, PAGE, MS_INVALIDATE));
}

pub(super) fn memfd_contents() {
    let fd = memfd(0);
    say!("{}", file::described(file::fstat(fd)));
    file::write(fd, "in memory");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("{:?}", text(memory, 9));
    poke(memory, b'I');
    say!("{}", file::read_at(fd, 20, 0));
    say!("close-on-exec: {}", sys!(SYS_fcntl, memfd(MFD_CLOEXEC), F_GETFD, 0));
    let mut name = [0u8; 64];
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let length = sys!(SYS_readlinkat, AT_FDCWD, path.as_c_str(), &mut name, 64).0.max(0) as usize;
    say!("its name: {}", String::from_utf8_lossy(&name[..length]));
    say!("unknown flag: {}", sys!(SYS_memfd_create, c"x", 0x80));
    let long = std::ffi::CString::new("n".repeat(250)).unwrap_or_default();
    say!("a name of 250: {}", sys!(SYS_memfd_create, long.as_c_str(), 0));
    say!("of 249: {}", sys!(SYS_memfd_create, long.as_c_str()[1..].as_ptr(), 0).ok_or_error());
}

pub(super) fn memfd_seals() {
    let seals = |fd: i32| sys!(SYS_fcntl, fd, F_GET_SEALS, 0);
    let add = |fd: i32, seals: i32| sys!(SYS_fcntl, fd, F_ADD_SEALS, seals);
    let plain = memfd(0);
    say!("without MFD_ALLOW_SEALING: {}, add {}", seals(plain), add(plain, F_SEAL_GROW));
    let fd = memfd(MFD_ALLOW_SEALING);
    say!("with: {}", seals(fd));
    file::write(fd, "0123456789");
    say!("F_SEAL_SHRINK: {}, ftruncate {}", add(fd, F_SEAL_SHRINK), sys!(SYS_ftruncate, fd, 5));
    say!("growing: {}", sys!(SYS_ftruncate, fd, 20));
    say!("F_SEAL_GROW: {}, ftruncate {}", add(fd, F_SEAL_GROW), sys!(SYS_ftruncate, fd, 30));
    sys!(SYS_lseek, fd, 15, SEEK_SET);
    say!("a write over the end: {}", file::write(fd, "0123456789"));
    say!("unknown seal: {}", add(fd, 0x100));
    say!("F_SEAL_SEAL: {}, another {}", add(fd, F_SEAL_SEAL), add(fd, F_SEAL_WRITE));
    say!("in all: {}", seals(fd));
}

pub(super) fn memfd_seal_write() {
    let fd = memfd(MFD_ALLOW_SEALING);
    file::write(fd, "0123456789");
    let add = |seals: i32| sys!(SYS_fcntl, fd, F_ADD_SEALS, seals);
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("with a writable mapping: {}", add(F_SEAL_WRITE));
    unmap(memory, PAGE);
    say!("without: {}", add(F_SEAL_WRITE));
    say!("write: {}", file::write(fd, "x"));
    say!("shared, to write: {}", map(PAGE, RW, MAP_SHARED, fd, 0));
    let reader = map(PAGE, PROT_READ, MAP_SHARED, fd, 0);
    say!("shared, to read: {}", reader.ok_or_error());
    say!("made writable: {}", protect(reader.0 as *mut u8, PAGE, RW));
    say!("private: {}", map(PAGE, RW, MAP_PRIVATE, fd, 0).ok_or_error());
    let future = memfd(MFD_ALLOW_SEALING);
    file::write(future, "0123456789");
    let memory = map(PAGE, RW, MAP_SHARED, future, 0).need() as *mut u8;
    say!("F_SEAL_FUTURE_WRITE: {}", sys!(SYS_fcntl, future, F_ADD_SEALS, 0x10));
    poke(memory, b'!');
    say!("the old mapping writes: {}", file::read_at(future, 3, 0));
    say!("write: {}", file::write(future, "x"));
    say!("a new mapping: {}", map(PAGE, RW, MAP_SHARED, future, 0));
}

pub(super) fn shared_file_between_processes() {
    close(create(c"f", &"\0".repeat(PAGE)));
    let gate = [Gate::new(), Gate::new()];
    let child = process::child(|| {
        let fd = file::open(c"f", O_RDWR).fd();
        let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
        gate[0].pass();
        say!("the child sees {}", peek(memory));
        poke(memory, 2);
        gate[1].open();
        0
    });
    let fd = file::open(c"f", O_RDWR).fd();
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, 1);
    gate[0].open();
    gate[1].pass();
    say!("its parent sees {}", peek(memory));
    process::wait(child);
}
