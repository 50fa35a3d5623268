//! Programs that can be executed, and the first one.

use std::cell::RefCell;

use pollux_kernel::boot;
use pollux_kernel::fs::tmpfs::{Options, TmpFs};
use pollux_kernel::fs::{self, MountFlags};
use pollux_kernel::mm::IoBuf;
use pollux_kernel::process::Thread;
use pollux_kernel::process::exec::{Strings, exec_path};
use pollux_kernel::process::run;

use super::{IMAGES, Program, users};
use crate::machine;

std::thread_local! {
    static INIT: RefCell<Option<Program>> = const { RefCell::new(None) };
}

/// What process 1 will run.
pub fn set_init(init: Program) {
    INIT.set(Some(init));
    add_image(|| INIT.take().expect("init is executed once"));
}

fn add_image(make: impl Fn() -> Program + 'static) -> usize {
    users(|users| {
        users.images.push(Box::new(make));
        users.images.len() - 1
    })
}

/// Registers a program that execve(2) can start; answers its path. To be called before the machine runs.
pub fn image_path(make: impl Fn() -> Program + 'static) -> String {
    if users(|users| users.images.is_empty()) {
        // Init is the first.
        add_image(|| INIT.take().expect("init is executed once"));
    }
    path_of(add_image(make))
}

fn path_of(index: usize) -> String {
    format!("/image{index}")
}

/// The kernel task that starts process 1.
pub async fn bring_up() {
    let root = TmpFs::new("tmpfs", b"none", Options::default());
    let path = fs::mount_root(root, MountFlags::default());
    let mut thread = boot::first_thread(path).expect("memory for process 1");
    for index in 0..users(|users| users.images.len()) {
        write_image(&thread, index).await;
    }
    let name = path_of(0);
    let argv = Strings::from_slices(&[name.as_bytes()]);
    if let Err(errno) = exec_path(&mut thread, name.as_bytes(), argv, Strings::from_slices(&[])).await {
        machine::fail(format!("init cannot be executed: {errno:?}"));
    }
    run::start(thread);
}

async fn write_image(thread: &Thread, index: usize) {
    const O_CREAT_WRONLY: u32 = 0o101;
    let how = fs::How::new(O_CREAT_WRONLY, 0o755);
    let file =
        fs::open(fs::Ctx::of(thread), fs::AT_FDCWD, path_of(index).as_bytes(), how).await.expect("an empty disk");
    let elf = elf(IMAGES + 16 * index as u64);
    let Ok(written) = file.write(thread, &mut IoBuf::kernel(&elf)).await else { panic!("{} bytes", elf.len()) };
    assert_eq!(written, elf.len());
}

/// The smallest ELF file that Linux would execute: headers only.
fn elf(entry: u64) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    out.resize(16, 0);
    let mut word = |size: usize, value: u64| out.extend_from_slice(&value.to_le_bytes()[..size]);
    // ET_EXEC, EM_AARCH64, version, entry, program headers, section headers, flags, sizes.
    for (size, value) in [(2, 2), (2, 183), (4, 1), (8, entry), (8, 64), (8, 0), (4, 0)] {
        word(size, value);
    }
    for value in [64, 56, 1, 64, 0, 0] {
        word(2, value);
    }
    // PT_LOAD, readable and executable.
    for (size, value) in [(4, 1), (4, 5), (8, 0), (8, IMAGES), (8, IMAGES), (8, HEADERS), (8, HEADERS), (8, 4096)] {
        word(size, value);
    }
    out
}
