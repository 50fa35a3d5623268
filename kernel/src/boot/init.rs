//! Devices, the root file system, process 1.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::cmdline::{self, Cmdline};
use super::root;
use crate::arch::{FpRegs, UserRegs};
use crate::drivers;
use crate::errno::{Errno, Result};
use crate::exec::Entity;
use crate::fs::{self, FdTable, FsContext, Path};
use crate::mm::{AddressSpace, page_cache};
use crate::process::exec::{Strings, exec_path};
use crate::process::{Credentials, Handles, Limits, NewProcess, Process, Session, Task, Thread, run, table};
use crate::signal::{SIGCHLD, SigHandlers, TaskSignals};
use crate::sync::Once;

/// Where Linux looks for init when `init=` is not given.
const DEFAULT_INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// The kernel task that ends by starting process 1.
pub async fn bring_up() {
    drivers::probe();
    page_cache::start_flushers();
    crate::exec::spawn("unix-gc", crate::net::rights::run());
    let line = cmdline::get();
    let root = match root::mount(line).await {
        Ok(root) => root,
        Err(why) => panic!("not syncing: VFS: {why}"),
    };
    if let Err(why) = start_init(line, root).await {
        panic!("not syncing: {why}");
    }
}

async fn start_init(line: &Cmdline, root: Path) -> core::result::Result<(), String> {
    let mut t = first_thread(root).map_err(|errno| format!("no memory for process 1: {errno:?}"))?;
    open_console(&t).await;
    let candidates: Vec<&str> = match &line.init {
        Some(init) => vec![init],
        None => DEFAULT_INITS.to_vec(),
    };
    for path in &candidates {
        let env: Vec<&[u8]> =
            [&b"HOME=/"[..], b"TERM=linux"].into_iter().chain(line.init_env.iter().map(String::as_bytes)).collect();
        let argv: Vec<&[u8]> =
            core::iter::once(path.as_bytes()).chain(line.init_args.iter().map(String::as_bytes)).collect();
        match exec_path(&mut t, path.as_bytes(), Strings::from_slices(&argv), Strings::from_slices(&env)).await {
            Ok(_) => {
                log::info!("Run {path} as init process");
                run::start(t);
                return Ok(());
            }
            Err(Errno::ENOENT) if line.init.is_none() => {}
            Err(errno) if line.init.is_some() => return Err(format!("Requested init {path} failed ({errno:?}).")),
            Err(errno) => log::error!("Starting init: {path} exists but couldn't execute it ({errno:?})"),
        }
    }
    Err("No working init found. Try passing init= option to kernel.".into())
}

/// Process 1 before it has a program. (Public for the simulator, which starts programs of its own.)
pub fn first_thread(root: Path) -> Result<Thread> {
    let mm = AddressSpace::new()?;
    let files = Arc::new(FdTable::new());
    let fs = Arc::new(FsContext::new(root));
    let creds = Arc::new(Credentials::root());
    let mut table = table::lock();
    let pid = table.allocate_pid()?;
    let process = Process::new(NewProcess {
        creator: 0,
        pid,
        // Session and group 0 are the kernel's own; init makes its own by setsid.
        pgid: 0,
        session: Session::new(0),
        handlers: Arc::new(SigHandlers::new()),
        limits: Limits::initial(threads_max()),
        exit_signal: SIGCHLD as u32,
    });
    table.add_process(process.clone(), 0);
    let handles =
        Handles { mm: Some(mm.clone()), files: Some(files.clone()), fs: Some(fs.clone()), creds: creds.clone() };
    let entity = Entity::new(Default::default());
    let task = Task::new(
        pid,
        process.clone(),
        entity,
        TaskSignals::new(),
        handles,
        *b"init\0\0\0\0\0\0\0\0\0\0\0\0",
        FpRegs::default(),
    );
    task.join(&mut process.threads.lock());
    table.add_task(task.clone());
    drop(table);
    Ok(Thread::new(task, UserRegs::default(), (mm, Arc::default()), files, fs, creds))
}

/// /proc/sys/kernel/threads-max; 0: not set.
static THREADS_MAX: AtomicU64 = AtomicU64::new(0);

/// As many threads as fill an eighth of memory with the kernel stacks that Linux gives them (16 KiB), until another number is set.
pub fn threads_max() -> u64 {
    match THREADS_MAX.load(Ordering::Relaxed) {
        0 => {
            static LIMIT: Once<u64> = Once::new();
            *LIMIT.call_once(|| (crate::mm::meminfo().total / (8 * (16 << 10))).max(20))
        }
        max => max,
    }
}

/// EINVAL unless thread ids could be so many.
pub fn set_threads_max(max: i64) -> Result<()> {
    const FUTEX_TID_MASK: i64 = 0x3fff_ffff;
    let max = Some(max).filter(|max| (1..=FUTEX_TID_MASK).contains(max)).ok_or(Errno::EINVAL)?;
    THREADS_MAX.store(max as u64, Ordering::Relaxed);
    Ok(())
}

/// Descriptors 0, 1 and 2 on /dev/console; without one init starts with none, as on Linux.
async fn open_console(t: &Thread) {
    const O_RDWR: u32 = 2;
    match fs::open(fs::Ctx::of(t), fs::AT_FDCWD, b"/dev/console", fs::How::new(O_RDWR, 0)).await {
        Ok(file) => {
            for _ in 0..3 {
                let _ = t.files().install(file.clone(), false);
            }
        }
        Err(errno) => log::warn!("Warning: unable to open an initial console ({errno:?})."),
    }
}
