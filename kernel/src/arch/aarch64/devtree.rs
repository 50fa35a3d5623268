//! The device tree before there is a heap: memory, what is reserved in it, and the console.

use super::layout::{EARLY_DTB, PAGE_SIZE};
use arrayvec::ArrayVec;
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use spin::Once;

/// The boot protocol wants the device tree to be no larger.
const MAX_SIZE: u64 = 2 << 20;

#[derive(Default)]
pub struct Early {
    pub dtb: Range<u64>,
    pub memory: ArrayVec<Range<u64>, 16>,
    pub reserved: ArrayVec<Range<u64>, 32>,
    /// `memory` without `reserved`, in whole pages.
    pub usable: ArrayVec<Range<u64>, 48>,
    pub initrd: Option<Range<u64>>,
    pub uart: Option<Range<u64>>,
    pub psci_by_smc: bool,
}

static EARLY: Once<Early> = Once::new();

pub fn early() -> &'static Early {
    EARLY.get().expect("device tree not read yet")
}

/// RAM that may be handed out (whole pages, ascending), and what is kept: kernel image, device tree, initrd,
/// /reserved-memory. Available from the first line of the generic kernel on.
pub fn early_memory() -> (&'static [Range<u64>], &'static [Range<u64>]) {
    (&early().usable, &early().reserved)
}

/// Reads the tree at physical address `dtb` through the boot mapping. `image` is the physical range of the kernel.
pub fn read_early(dtb: u64, image: Range<u64>) -> &'static Early {
    EARLY.call_once(|| {
        // SAFETY: boot.s maps 4 MiB from the 2 MiB boundary below the tree, which holds at most 2 MiB.
        let fdt = unsafe { open((EARLY_DTB + dtb % (2 << 20)) as *const u8) };
        let mut early = Early::default();
        if let Some(fdt) = fdt {
            early.dtb = dtb..dtb + fdt.data().len() as u64;
            scan(&fdt, &mut early, image);
        }
        early
    })
}

/// # Safety
/// Two MiB from `at` on must be readable.
pub unsafe fn open(at: *const u8) -> Option<Fdt<'static>> {
    // SAFETY: within the readable range. Magic and total size are big-endian words.
    let (magic, size) = unsafe {
        let words = at.cast::<u32>();
        (u32::from_be(words.read_unaligned()), u32::from_be(words.add(1).read_unaligned()))
    };
    if magic != 0xd00d_feed || size as u64 > MAX_SIZE {
        return None;
    }
    // SAFETY: the whole of the tree is readable, and nothing writes to it.
    unsafe { Fdt::from_raw(at) }.ok()
}

/// Few of them.
fn sort(ranges: &mut [Range<u64>]) {
    for end in 1..ranges.len() {
        for place in (1..=end).rev() {
            if ranges[place - 1].start <= ranges[place].start {
                break;
            }
            ranges.swap(place - 1, place);
        }
    }
}

fn scan(fdt: &Fdt<'static>, early: &mut Early, image: Range<u64>) {
    let root = fdt.root();
    for node in root.children().filter(|node| node.name_without_address() == "memory" && enabled(node)) {
        for range in regs(node) {
            let _ = early.memory.try_push(range);
        }
    }
    sort(&mut early.memory);

    let _ = early.reserved.try_push(image);
    let _ = early.reserved.try_push(early.dtb.clone());
    if let Some(chosen) = fdt.find_node("/chosen")
        && let (Some(start), Some(end)) = (number(&chosen, "linux,initrd-start"), number(&chosen, "linux,initrd-end"))
        && start < end
    {
        early.initrd = Some(start..end);
        let _ = early.reserved.try_push(start..end);
    }
    for entry in fdt.memory_reservations() {
        let _ = early.reserved.try_push(entry.address()..entry.address().saturating_add(entry.size()));
    }
    if let Some(node) = fdt.find_node("/reserved-memory") {
        for range in node.children().filter(enabled).flat_map(regs) {
            let _ = early.reserved.try_push(range);
        }
    }
    sort(&mut early.reserved);
    subtract(early);

    early.uart = console(fdt).and_then(|node| regs(node).next());
    early.psci_by_smc = fdt
        .find_node("/psci")
        .and_then(|node| node.property("method"))
        .is_some_and(|method| method.value().starts_with(b"smc"));
}

fn subtract(early: &mut Early) {
    for bank in &early.memory {
        let mut at = bank.start.next_multiple_of(PAGE_SIZE);
        let end = bank.end & !(PAGE_SIZE - 1);
        for hole in early.reserved.iter().filter(|hole| hole.end > bank.start && hole.start < bank.end) {
            let start = hole.start & !(PAGE_SIZE - 1);
            if at < start {
                let _ = early.usable.try_push(at..start);
            }
            at = at.max(hole.end.next_multiple_of(PAGE_SIZE));
        }
        if at < end {
            let _ = early.usable.try_push(at..end);
        }
    }
}

/// The node that /chosen names as console if it is a PL011, else the first PL011.
fn console(fdt: &Fdt<'static>) -> Option<FdtNode<'static>> {
    let is_pl011 = |node: &FdtNode<'static>| node.is_compatible("arm,pl011") && enabled(node);
    let named = fdt.find_node("/chosen").and_then(|chosen| chosen.property("stdout-path")).and_then(|path| {
        let path = path.value_as::<&str>().ok()?.split(':').next()?;
        if path.starts_with('/') {
            return fdt.find_node(path);
        }
        let alias = fdt.find_node("/aliases")?.property(path)?;
        fdt.find_node(alias.value_as::<&str>().ok()?)
    });
    named.filter(is_pl011).or_else(|| fdt.root().children().find(is_pl011))
}

/// False for nodes that say status = "disabled".
pub fn enabled(node: &FdtNode<'static>) -> bool {
    node.property("status").is_none_or(|status| status.value().starts_with(b"ok"))
}

/// The `reg` property as ranges of addresses.
pub fn regs(node: FdtNode<'static>) -> impl Iterator<Item = Range<u64>> {
    node.reg().ok().flatten().into_iter().flatten().filter_map(|reg| {
        let start = reg.address::<u64>().ok()?;
        Some(start..start.checked_add(reg.size::<u64>().ok()?)?)
    })
}

/// A property of one or two cells (QEMU wrote `linux,initrd-start` as one before version 9).
pub fn number(node: &FdtNode<'static>, name: &str) -> Option<u64> {
    let property = node.property(name)?;
    match property.value().len() {
        4 => property.value_as::<u32>().ok().map(u64::from),
        8 => property.value_as::<u64>().ok(),
        _ => None,
    }
}

/// The big-endian 32-bit cells of a property.
pub fn cells(node: &FdtNode<'static>, name: &str) -> impl Iterator<Item = u32> {
    let value = node.property(name).and_then(|property| property.value_as::<&'static [u8]>().ok()).unwrap_or(&[]);
    value.chunks_exact(4).map(|cell| u32::from_be_bytes([cell[0], cell[1], cell[2], cell[3]]))
}
