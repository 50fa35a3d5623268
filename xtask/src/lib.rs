//! Everything that happens on the host: building the kernel, making root file systems, running
//! guests in QEMU and testing them. The binary is `cargo xtask`; the tests use this library.
//!
//! * [`provision`]: finds and installs the tools that the rest needs; what rustup cannot get is built
//!   `from_source`.
//! * [`build`] turns crates into a kernel [`flat`] image and guest programs.
//! * [`recipe`], [`apt`], [`source_build`], [`image`]: from `images/NAME.toml` to an ext2 file.
//! * [`linux`], [`cpio`]: Debian's kernel as the reference to compare with.
//! * [`machine`] is a QEMU command line; [`guest`] a running one; [`session`] runs one program in
//!   it; [`interactive`] gives it the terminal.
//! * [`contract`] compares what programs see with what Linux shows them.
//! * [`workload`] runs programs of others that load a kernel and check it.
//! * [`wire`]: a bad network between a guest and the host.
//! * [`power_cut`] kills machines that write, and looks at their disks.
//! * [`mod@bench`] measures kernels, [`trace`] shows the system calls of a program.
//! * [`sim`]: the kernel on simulated machines, without QEMU; [`miri`]: its host tests under Miri.

pub mod apt;
pub mod bench;
pub mod build;
pub mod check;
pub mod cli;
pub mod contract;
pub mod cpio;
pub mod doctor;
pub mod document;
pub mod flat;
mod from_source;
pub mod guest;
pub mod image;
pub mod interactive;
pub mod ksyms;
pub mod linux;
pub mod machine;
pub mod miri;
pub mod network;
pub mod paths;
pub mod power_cut;
pub mod provision;
pub mod recipe;
pub mod refusal;
pub mod session;
pub mod share;
pub mod sim;
pub mod source_build;
pub mod test;
pub mod trace;
pub mod ui;
pub mod wire;
pub mod workload;
