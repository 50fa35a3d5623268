//! The kernel image. On the bare machine the entry point is in `arch`; on the host this program only says so.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    pollux_kernel::arch::panic(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the kernel; build and run it with: cargo xtask qemu");
}
