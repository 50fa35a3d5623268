//! /proc itself: the files about the whole system.

use super::lock_stat;
use super::node::{Static, StaticKind};
use super::sys;
use super::sysvipc;
use super::text::{CpuTimes, Text, put, put_cpu_times, put_meminfo, put_seconds};
use crate::arch;
use crate::boot::cmdline;
use crate::errno::Result;
use crate::exec::{self, CpuStats};
use crate::fs::{self, block};
use crate::mm;
use crate::process::{table, trace};
use crate::sysrq;
use crate::uts;

pub static ROOT: Static = Static { name: "", perm: 0o555, kind: StaticKind::Root(ENTRIES) };

static ENTRIES: &[Static] = &[
    Static::text("cmdline", |out| put!(out, "{}\n", cmdline::get().raw)),
    Static::text("cpuinfo", cpuinfo),
    Static::text("devices", devices),
    Static::text("diskstats", diskstats),
    Static::text("filesystems", |out| {
        out.bytes(&fs::proc_filesystems());
    }),
    Static::text("loadavg", loadavg),
    lock_stat::FILE,
    Static::text("meminfo", meminfo),
    Static::link("mounts", "self/mounts"),
    Static::link("net", "self/net"),
    Static::text("partitions", partitions),
    Static::dir("pollux", POLLUX),
    Static { name: "self", perm: 0o777, kind: StaticKind::SelfLink },
    Static { name: "slabinfo", perm: 0o400, kind: StaticKind::Text(slabinfo) },
    Static::text("stat", stat),
    Static::text("swaps", |out| put!(out, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    Static::dir("sys", sys::ENTRIES),
    Static { name: "sysrq-trigger", perm: 0o200, kind: StaticKind::Setting(|_| {}, |bytes, _| sysrq_trigger(bytes)) },
    Static::dir("sysvipc", sysvipc::ENTRIES),
    Static { name: "thread-self", perm: 0o777, kind: StaticKind::ThreadSelfLink },
    Static::text("uptime", uptime),
    Static::text("version", version),
    Static::text("vmstat", vmstat),
];

/// What Linux does not have.
static POLLUX: &[Static] = &[
    // Of the reader's CPU, for tests of what allocates nothing.
    Static::text("allocations", |out| put!(out, "{}\n", mm::heap::asked_here())),
    Static {
        name: "trace",
        perm: 0o400,
        kind: StaticKind::Text(|out| trace::take(TRACE_TEXT, |line| put!(out, "{line}"))),
    },
];

/// Bytes of records in one text of /proc/pollux/trace, more or less.
const TRACE_TEXT: usize = 64 << 10;

/// The words of Features, by bit of AT_HWCAP and then of AT_HWCAP2 (asm/hwcap.h).
const FEATURES: [&str; 32] = [
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve", "asimdfhm", "dit",
    "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg",
];
const FEATURES2: [&str; 20] = [
    "dcpodp",
    "sve2",
    "sveaes",
    "svepmull",
    "svebitperm",
    "svesha3",
    "svesm4",
    "flagm2",
    "frint",
    "svei8mm",
    "svef32mm",
    "svef64mm",
    "svebf16",
    "i8mm",
    "bf16",
    "dgh",
    "rng",
    "bti",
    "mte",
    "ecv",
];

fn cpuinfo(out: &mut Text) {
    let (hwcap, hwcap2) = arch::hwcaps();
    // MIDR_EL1 (Arm ARM D19.2.121); all CPUs are of one kind.
    let midr = arch::midr();
    // Linux derives BogoMIPS from the frequency of the system counter.
    let bogomips = arch::clock_params().frequency / 5_000;
    for cpu in 0..arch::cpu_count() {
        put!(out, "processor\t: {cpu}\nBogoMIPS\t: {}.{:02}\nFeatures\t:", bogomips / 100, bogomips % 100);
        for (caps, names) in [(hwcap, &FEATURES[..]), (hwcap2, &FEATURES2[..])] {
            for (bit, name) in names.iter().enumerate() {
                if caps & (1 << bit) != 0 {
                    put!(out, " {name}");
                }
            }
        }
        put!(out, "\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\n", midr >> 24 & 0xff);
        put!(out, "CPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\n", midr >> 20 & 0xf, midr >> 4 & 0xfff);
        put!(out, "CPU revision\t: {}\n\n", midr & 0xf);
    }
}

fn devices(out: &mut Text) {
    put!(out, "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n");
    put!(out, "136 pts\n204 ttyAMA\n\nBlock devices:\n  7 loop\n254 virtblk\n");
}

/// The first letter that is written counts, as on Linux; what it does is not subject to /proc/sys/kernel/sysrq.
fn sysrq_trigger(bytes: &[u8]) -> Result<()> {
    if let Some(&key) = bytes.first() {
        sysrq::press(key);
    }
    Ok(())
}

fn loadavg(out: &mut Text) {
    const ONE: u64 = 1 << exec::LOAD_SHIFT;
    for load in exec::load_average() {
        // Rounded to hundredths.
        let load = load + ONE / 200;
        put!(out, "{}.{:02} ", load >> exec::LOAD_SHIFT, ((load & (ONE - 1)) * 100) >> exec::LOAD_SHIFT);
    }
    put!(out, "{}/{} {}\n", exec::nr_running(), table::thread_count(), table::last_pid());
}

fn meminfo(out: &mut Text) {
    let m = mm::meminfo();
    let file = m.cached.saturating_sub(m.shmem);
    for (label, bytes) in [
        ("MemTotal", m.total),
        ("MemFree", m.free),
        ("MemAvailable", m.available),
        ("Buffers", m.buffers),
        ("Cached", m.cached),
        ("SwapCached", 0),
        ("Active", m.anon + m.shmem + file),
        ("Inactive", 0),
        ("Active(anon)", m.anon + m.shmem),
        ("Inactive(anon)", 0),
        ("Active(file)", file),
        ("Inactive(file)", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", m.dirty),
        ("Writeback", m.writeback),
        ("AnonPages", m.anon),
        ("Shmem", m.shmem),
        ("Slab", m.slab),
        ("SReclaimable", 0),
        ("SUnreclaim", m.slab),
        ("PageTables", m.page_tables),
        ("AnonHugePages", m.anon_huge),
    ] {
        put_meminfo(out, label, bytes);
    }
    // hugetlbfs(7) has no pages here.
    for label in ["Total", "Free", "Rsvd", "Surp"] {
        put!(out, "HugePages_{label}:{:>1$}\n", 0, 13 - label.len());
    }
    put_meminfo(out, "Hugepagesize", mm::huge::SIZE);
    put_meminfo(out, "Hugetlb", 0);
}

/// slabinfo(5), version 2.1: the classes of the kernel's heap. What CPUs keep for the next use counts as active.
fn slabinfo(out: &mut Text) {
    put!(
        out,
        "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    );
    put!(out, " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n");
    for s in mm::heap::slab_stats() {
        let name = format!("kmalloc-{}", s.object_size);
        let objects = s.slabs * s.objects_per_slab;
        put!(out, "{name:<17} {:>6} {objects:>6} {:>6}", s.used, s.object_size);
        put!(out, " {:>4} {:>4} : tunables    0    0    0", s.objects_per_slab, s.pages_per_slab);
        put!(out, " : slabdata {0:>6} {0:>6}      0\n", s.slabs);
    }
}

fn all_cpus() -> impl Iterator<Item = CpuStats> {
    (0..arch::cpu_count()).map(exec::cpu_stats)
}

fn stat(out: &mut Text) {
    let times = |s: CpuStats| CpuTimes { user: s.user_ns, system: s.system_ns, idle: s.idle_ns, ..CpuTimes::default() };
    let mut sum = CpuTimes::default();
    for t in all_cpus().map(times) {
        sum.user += t.user;
        sum.system += t.system;
        sum.idle += t.idle;
    }
    put_cpu_times(out, "cpu ", &sum);
    for (cpu, stats) in all_cpus().enumerate() {
        put_cpu_times(out, &format!("cpu{cpu}"), &times(stats));
    }
    put!(out, "intr {}\n", all_cpus().map(|s| s.ipis + s.timer_irqs).sum::<u64>());
    put!(out, "ctxt {}\n", all_cpus().map(|s| s.switches).sum::<u64>());
    put!(out, "btime {}\nprocesses {}\n", crate::time::realtime_offset() / 1_000_000_000, table::last_pid());
    put!(out, "procs_running {}\nprocs_blocked 0\n", exec::nr_running());
}

fn diskstats(out: &mut Text) {
    for disk in block::disks() {
        put!(out, "{:>4} {:>7} {}", disk.id.major, disk.id.minor, disk.name);
        disk.device.put_stats(out, false);
        out.bytes(b"\n");
    }
}

fn partitions(out: &mut Text) {
    put!(out, "major minor  #blocks  name\n\n");
    // Loop devices without a file are no disks.
    for disk in block::disks().iter().filter(|disk| disk.device.sectors() > 0) {
        let kib = disk.device.sectors() / 2;
        put!(out, "{:>4}  {:>7} {kib:>10} {}\n", disk.id.major, disk.id.minor, disk.name);
    }
}

fn uptime(out: &mut Text) {
    put_seconds(out, arch::now_ns());
    out.bytes(b" ");
    put_seconds(out, all_cpus().map(|s| s.idle_ns).sum());
    out.bytes(b"\n");
}

fn version(out: &mut Text) {
    put!(out, "{} version {} {}\n", uts::SYSNAME, uts::RELEASE, uts::VERSION);
}

fn vmstat(out: &mut Text) {
    let m = mm::meminfo();
    for (label, bytes) in [
        ("nr_free_pages", m.free),
        ("nr_anon_pages", m.anon),
        ("nr_file_pages", m.cached),
        ("nr_dirty", m.dirty),
        ("nr_writeback", m.writeback),
        ("nr_shmem", m.shmem),
        ("nr_page_table_pages", m.page_tables),
    ] {
        put!(out, "{label} {}\n", bytes / mm::PAGE_SIZE as u64);
    }
    let (mut read, mut written) = (0, 0);
    for disk in block::disks() {
        let [from, to] = disk.device.stats().map_or([0; 2], |stats| stats.sectors());
        read += from;
        written += to;
    }
    // In KiB.
    put!(out, "pgpgin {}\npgpgout {}\n", read / 2, written / 2);
}
