//! Files in the cache, on a file system in memory and on the disk's.

use std::ffi::{CStr, CString};

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("open_close_tmpfs", |bench| open_close(bench, TMPFS)),
    row("open_close_ext2", |bench| open_close(bench, EXT2)),
    row("stat_tmpfs", |bench| stat(bench, TMPFS)),
    row("stat_ext2", |bench| stat(bench, EXT2)),
    row("stat_missing", stat_missing),
    row("fstat", fstat),
    row("access", access),
    row("readlink", readlink),
    row("create_unlink_tmpfs", |bench| create_unlink(bench, TMPFS)),
    row("create_unlink_ext2", |bench| create_unlink(bench, EXT2)),
    row("mkdir_rmdir_tmpfs", |bench| mkdir_rmdir(bench, TMPFS)),
    row("mkdir_rmdir_ext2", |bench| mkdir_rmdir(bench, EXT2)),
    row("rename_tmpfs", |bench| rename(bench, TMPFS)),
    row("rename_ext2", |bench| rename(bench, EXT2)),
    row("append_4k_tmpfs", |bench| append(bench, TMPFS)),
    row("append_4k_ext2", |bench| append(bench, EXT2)),
    row("overwrite_4k_tmpfs", |bench| overwrite(bench, TMPFS)),
    row("overwrite_4k_ext2", |bench| overwrite(bench, EXT2)),
    row("read_1_tmpfs", |bench| read(bench, TMPFS, 1)),
    row("read_1_ext2", |bench| read(bench, EXT2, 1)),
    row("read_4k_tmpfs", |bench| read(bench, TMPFS, 4 << 10)),
    row("read_4k_ext2", |bench| read(bench, EXT2, 4 << 10)),
    row("read_64k_ext2", |bench| read(bench, EXT2, 64 << 10)),
    // What makes many inodes and removes them again comes last: for minutes, ext4 looks at each of those before it takes another.
    row("create_tmpfs", |bench| create_many(bench, TMPFS)),
    row("create_ext2", |bench| create_many(bench, EXT2)),
    row("unlink_tmpfs", |bench| unlink_many(bench, TMPFS)),
    row("unlink_ext2", |bench| unlink_many(bench, EXT2)),
    row("getdents_100_tmpfs", |bench| getdents(bench, TMPFS, 100)),
    row("getdents_100_ext2", |bench| getdents(bench, EXT2, 100)),
    row("getdents_1000_tmpfs", |bench| getdents(bench, TMPFS, 1000)),
    row("getdents_1000_ext2", |bench| getdents(bench, EXT2, 1000)),
];

const TMPFS: &str = "/tmp";
const EXT2: &str = "/var/tmp";
const HERE: usize = libc::AT_FDCWD as usize;

fn path(folder: &str, name: &str) -> CString {
    CString::new(format!("{folder}/bench.{name}")).unwrap_or_default()
}

fn create(path: &CStr) -> Result<i32> {
    sys::open(path, libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC)
}

/// Makes a file, does something with its name, and removes it.
fn with_file(folder: &str, work: impl FnOnce(&CStr) -> Result<f64>) -> Result<f64> {
    let path = path(folder, "file");
    sys::close(create(&path)?);
    let result = work(&path);
    sys::unlink(&path)?;
    result
}

fn open_close(bench: &Bench, folder: &str) -> Result<f64> {
    with_file(folder, |path| {
        bench.per_operation(5_000, || {
            sys::close(sys::open(path, libc::O_RDONLY)?);
            Ok(())
        })
    })
}

/// A buffer for the kernel's `struct stat`.
type Stat = [u64; 16];

fn stat(bench: &Bench, folder: &str) -> Result<f64> {
    with_file(folder, |path| {
        let mut stat: Stat = [0; 16];
        let arguments = [HERE, path.as_ptr() as usize, stat.as_mut_ptr() as usize, 0];
        bench.per_operation(5_000, || sys::call("newfstatat", libc::SYS_newfstatat, arguments).map(drop))
    })
}

fn stat_missing(bench: &Bench) -> Result<f64> {
    let mut stat: Stat = [0; 16];
    let path = path(EXT2, "missing");
    let arguments = [HERE, path.as_ptr() as usize, stat.as_mut_ptr() as usize, 0];
    bench.per_operation(5_000, || {
        let result = sys::raw(libc::SYS_newfstatat, arguments);
        sys::expect(result == -libc::ENOENT as isize, "the missing file is there")
    })
}

fn fstat(bench: &Bench) -> Result<f64> {
    let mut stat: Stat = [0; 16];
    with_file(TMPFS, |path| {
        let arguments = [sys::open(path, libc::O_RDONLY)? as usize, stat.as_mut_ptr() as usize];
        bench.per_operation(10_000, || sys::call("fstat", libc::SYS_fstat, arguments).map(drop))
    })
}

fn access(bench: &Bench) -> Result<f64> {
    let arguments = [HERE, c"/usr/bin/bench".as_ptr() as usize, libc::R_OK as usize];
    bench.per_operation(5_000, || sys::call("faccessat", libc::SYS_faccessat, arguments).map(drop))
}

fn readlink(bench: &Bench) -> Result<f64> {
    let path = path(TMPFS, "link");
    sys::call("symlinkat", libc::SYS_symlinkat, [c"a/b/c".as_ptr() as usize, HERE, path.as_ptr() as usize])?;
    let mut buffer = [0u8; 64];
    let arguments = [HERE, path.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len()];
    let result = bench.per_operation(5_000, || sys::call("readlinkat", libc::SYS_readlinkat, arguments).map(drop));
    sys::unlink(&path)?;
    result
}

/// A folder of its own, and names for so many files in it.
struct Names {
    inside: CString,
    names: Vec<CString>,
}

impl Names {
    fn new(folder: &str, name: &str, count: usize) -> Result<Names> {
        let inside = path(folder, name);
        mkdir(&inside)?;
        let names = (0..count).map(|index| path(&inside.to_string_lossy(), &index.to_string())).collect();
        Ok(Names { inside, names })
    }

    fn create(&self) -> Result {
        self.names.iter().try_for_each(|name| create(name).map(sys::close))
    }

    fn unlink(&self) -> Result {
        self.names.iter().try_for_each(|name| sys::unlink(name))
    }

    fn remove(&self) -> Result {
        self.unlink()?;
        rmdir(&self.inside)
    }
}

const MANY: usize = 100;

/// So that nothing of before is written while it counts, and the disk knows of it.
fn sync() -> Result {
    sys::call("sync", libc::SYS_sync, []).map(drop)
}

/// Files made in an empty folder, and closed: the cost of one.
fn create_many(bench: &Bench, folder: &str) -> Result<f64> {
    // The tables of inodes are not read from the disk while it counts.
    let rounds = bench.count(16) + 1;
    let before = Names::new(folder, "before", rounds as usize * MANY)?;
    before.create()?;
    before.remove()?;
    if bench.counting() {
        // Time that does not pass: ext4 takes the inodes again that were freed before that long.
        sys::sleep_ms(400_000);
    }
    let mut all = Vec::new();
    let result = bench.per_round(16, MANY as u64, |watch| {
        let names = Names::new(folder, &all.len().to_string(), MANY)?;
        sync()?;
        watch.time(|| names.create())?;
        all.push(names);
        Ok(())
    });
    all.iter().try_for_each(Names::remove)?;
    result
}

fn unlink_many(bench: &Bench, folder: &str) -> Result<f64> {
    let names = Names::new(folder, "many", MANY)?;
    let result = bench.per_round(16, MANY as u64, |watch| {
        names.create()?;
        sync()?;
        watch.time(|| names.unlink())
    });
    rmdir(&names.inside)?;
    result
}

/// A folder of so many files, from its first entry to its last.
fn getdents(bench: &Bench, folder: &str, count: usize) -> Result<f64> {
    let names = Names::new(folder, "many", count)?;
    names.create()?;
    let result = list(bench, &names.inside, 10_000 / count as u64);
    names.remove()?;
    result
}

fn list(bench: &Bench, inside: &CStr, times: u64) -> Result<f64> {
    let dir = sys::open(inside, libc::O_RDONLY | libc::O_DIRECTORY)? as usize;
    let mut buffer = vec![0u64; 2048];
    let result = bench.per_operation(times, || {
        sys::call("lseek", libc::SYS_lseek, [dir, 0, 0])?;
        let arguments = [dir, buffer.as_mut_ptr() as usize, buffer.len() * 8];
        while sys::call("getdents64", libc::SYS_getdents64, arguments)? > 0 {}
        Ok(())
    });
    sys::close(dir as i32);
    result
}

fn create_unlink(bench: &Bench, folder: &str) -> Result<f64> {
    let path = path(folder, "new");
    bench.per_operation(3_000, || {
        sys::close(create(&path)?);
        sys::unlink(&path)
    })
}

fn mkdir(path: &CStr) -> Result {
    sys::call("mkdirat", libc::SYS_mkdirat, [HERE, path.as_ptr() as usize, 0o755]).map(drop)
}

fn rmdir(path: &CStr) -> Result {
    let flags = libc::AT_REMOVEDIR as usize;
    sys::call("unlinkat", libc::SYS_unlinkat, [HERE, path.as_ptr() as usize, flags]).map(drop)
}

fn mkdir_rmdir(bench: &Bench, folder: &str) -> Result<f64> {
    let path = path(folder, "dir");
    bench.per_operation(2_000, || {
        mkdir(&path)?;
        rmdir(&path)
    })
}

/// To another name and back: the cost of one.
fn rename(bench: &Bench, folder: &str) -> Result<f64> {
    let names = [path(folder, "one"), path(folder, "two")];
    let [one, two] = names.each_ref().map(|name| name.as_ptr() as usize);
    sys::close(create(&names[0])?);
    let cost = bench.per_operation(1_000, || {
        sys::call("renameat2", libc::SYS_renameat2, [HERE, one, HERE, two, 0])?;
        sys::call("renameat2", libc::SYS_renameat2, [HERE, two, HERE, one, 0]).map(drop)
    });
    sys::unlink(&names[0])?;
    Ok(cost? / 2.0)
}

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;

/// To a file that is empty at first: the cost of one block.
fn append(bench: &Bench, folder: &str) -> Result<f64> {
    let path = path(folder, "append");
    let block = [1; BLOCK];
    let result = bench.per_round(16, BLOCKS, |watch| {
        let file = create(&path)?;
        watch.time(|| (0..BLOCKS).try_for_each(|_| sys::write_all(file, &block)))?;
        sys::close(file);
        Ok(())
    });
    sys::unlink(&path)?;
    result
}

fn overwrite(bench: &Bench, folder: &str) -> Result<f64> {
    let path = path(folder, "overwrite");
    let file = create(&path)?;
    let block = [1; BLOCK];
    (0..BLOCKS).try_for_each(|_| sys::write_all(file, &block))?;
    let result = bench.per_round(16, BLOCKS, |watch| {
        sys::call("lseek", libc::SYS_lseek, [file as usize, 0, 0])?;
        watch.time(|| (0..BLOCKS).try_for_each(|_| sys::write_all(file, &block)))
    });
    sys::unlink(&path)?;
    result
}

fn read(bench: &Bench, folder: &str, length: usize) -> Result<f64> {
    let path = path(folder, "read");
    let file = create(&path)?;
    sys::write_all(file, &vec![1; length])?;
    let mut buffer = vec![0u8; length];
    let arguments = [file as usize, buffer.as_mut_ptr() as usize, length, 0];
    let result = bench.per_operation(2_000, || {
        let done = sys::call("pread64", libc::SYS_pread64, arguments)?;
        sys::expect(done == length, "a short read")
    });
    sys::unlink(&path)?;
    result
}
