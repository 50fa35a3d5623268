//! Signals of faulty instructions: which, with what code, and at what address (sigaction(2)).

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use libc::*;

use crate::file::create;
use crate::memory::{self, PAGE, pages, peek, poke};
use crate::process::{self, in_child};
use crate::signal::{self, context, handle};
use crate::sys::{KERNEL, Ret, sys};
use crate::{say, tests};

tests! {
    unmapped, protected, not_to_be_run, behind_the_file, cut_while_mapped, undefined, traps, misaligned, the_kernels,
    blocked_fault, ignored_fault, fault_in_its_handler, fault_in_a_call, repaired, guard_of_the_stack, of_a_thread,
    stack_that_grows, privileged, sent_like_a_fault,
}

static BASE: AtomicUsize = AtomicUsize::new(0);

/// Shows a fault, with its address from the test's base on, and ends.
extern "C" fn show(signal: i32, info: *const siginfo_t, at: *mut c_void) {
    // SAFETY: the handler's record.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let base = BASE.load(SeqCst);
    let pc = context(at).pc as usize;
    let place = if address == 0 {
        "0".into()
    } else if address == pc {
        "the instruction".into()
    } else if address >= base && address - base < 64 * PAGE {
        format!("base + {:#x}", address - base)
    } else {
        "elsewhere".to_string()
    };
    let same = context(at).fault_address as usize == address;
    say!("{}: code {code}, {place}, in the context: {same}", signal::name(signal));
    process::exit(0);
}

/// What becomes of a child that does this.
fn attempt(name: &str, base: *mut u8, body: impl FnOnce()) {
    BASE.store(base as usize, SeqCst);
    let status = in_child(|| {
        for signal in [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE] {
            handle(signal, show, 0);
        }
        say!("{name}:");
        body();
        say!("nothing");
        0
    });
    if !matches!(status, process::Status::Exited(0)) {
        say!("{status}");
    }
}

fn unmapped() {
    let page = pages(4);
    sys!(SYS_munmap, page.wrapping_add(PAGE), PAGE);
    attempt("read", page, || {
        peek(page.wrapping_add(PAGE + 5));
    });
    attempt("write", page, || poke(page.wrapping_add(PAGE + 5), 1));
    attempt("address 0", page, || {
        peek(std::ptr::null());
    });
    attempt("address 8", std::ptr::null_mut(), || {
        peek(8 as *const u8);
    });
    attempt("over the end of a mapping", page, || {
        // SAFETY: eight bytes, half of which are mapped: a fault that the test wants.
        unsafe { page.wrapping_add(PAGE - 4).cast::<u64>().read_unaligned() };
    });
}

fn protected() {
    let page = pages(4);
    sys!(SYS_mprotect, page, PAGE, PROT_READ);
    sys!(SYS_mprotect, page.wrapping_add(PAGE), PAGE, PROT_NONE);
    attempt("write to what is read-only", page, || poke(page.wrapping_add(9), 1));
    attempt("read what is not to be read", page, || {
        peek(page.wrapping_add(PAGE + 9));
    });
    attempt("write there", page, || poke(page.wrapping_add(PAGE + 9), 1));
    poke(page.wrapping_add(2 * PAGE), 1);
    sys!(SYS_mprotect, page.wrapping_add(2 * PAGE), PAGE, PROT_READ);
    attempt("write to what was written before", page, || poke(page.wrapping_add(2 * PAGE), 1));
}

fn call(at: *const u8) {
    // SAFETY: a fault that the test wants, or instructions that it has written.
    let function: extern "C" fn() = unsafe { std::mem::transmute(at) };
    function();
}

fn not_to_be_run() {
    let page = pages(4);
    attempt("data", page, || call(page.wrapping_add(16)));
    sys!(SYS_munmap, page.wrapping_add(PAGE), PAGE);
    attempt("nothing", page, || call(page.wrapping_add(PAGE + 16)));
    attempt("an odd address", page, || call(page.wrapping_add(18)));
    attempt("the kernel's", page, || call(KERNEL as *const u8));
}

fn behind_the_file() {
    let fd = create(c"f", "some text");
    let map = |flags: i32| memory::map(3 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0).need() as *mut u8;
    for (name, flags) in [("shared", MAP_SHARED), ("private", MAP_PRIVATE)] {
        let page = map(flags);
        say!("{name}, the rest of the last page: {}", peek(page.wrapping_add(100)));
        attempt("read behind it", page, || {
            peek(page.wrapping_add(PAGE + 3));
        });
        attempt("write behind it", page, || poke(page.wrapping_add(2 * PAGE + 3), 1));
    }
}

fn cut_while_mapped() {
    let fd = create(c"f", "");
    sys!(SYS_ftruncate, fd, 3 * PAGE);
    let shared = memory::map(3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
    let private = memory::map(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0).need() as *mut u8;
    poke(shared.wrapping_add(2 * PAGE), 7);
    poke(private.wrapping_add(2 * PAGE), 8);
    sys!(SYS_ftruncate, fd, PAGE);
    attempt("shared", shared, || {
        peek(shared.wrapping_add(2 * PAGE));
    });
    attempt("private, written before", private, || {
        peek(private.wrapping_add(2 * PAGE));
    });
    sys!(SYS_ftruncate, fd, 3 * PAGE);
    say!("long again: {} {}", peek(shared.wrapping_add(2 * PAGE)), peek(private.wrapping_add(2 * PAGE)));
}

/// A page with these instructions and a return behind them.
fn code(instructions: &[u32]) -> *mut u8 {
    let page = pages(1);
    for (index, instruction) in instructions.iter().chain(&[0xd65f_03c0]).enumerate() {
        // SAFETY: within a page of this process.
        unsafe { page.cast::<u32>().add(index).write(*instruction) };
    }
    sys!(SYS_mprotect, page, PAGE, PROT_READ | PROT_EXEC);
    page
}

fn undefined() {
    for (name, instruction) in
        [("udf #0", 0u32), ("udf #7", 7), ("nothing known", 0xffff_ffff), ("hvc", 0xd400_0002), ("smc", 0xd400_0003)]
    {
        let page = code(&[0xd503_201f, instruction]);
        attempt(name, page, || call(page));
    }
}

fn traps() {
    for (name, instruction) in
        [("brk #0", 0xd420_0000u32), ("brk #1", 0xd420_0020), ("brk #0xffff", 0xd43f_ffe0), ("hlt", 0xd440_0000)]
    {
        let page = code(&[0xd503_201f, instruction]);
        attempt(name, page, || call(page));
    }
}

fn misaligned() {
    let page = pages(2);
    // ldr x0, [x1, #1] is fine; a load-exclusive is not: ldxr w0, [x1]
    let plain = code(&[0xf840_1021]);
    let _ = plain;
    attempt("a plain load", page, || {
        // SAFETY: within the page.
        let value = unsafe { page.wrapping_add(1).cast::<u64>().read_unaligned() };
        std::hint::black_box(value);
    });
    // mov x1, #0x1001... : x0 is the argument.
    let exclusive = code(&[0x885f_7c00]);
    attempt("a load-exclusive", page, || {
        // SAFETY: the code reads at its argument: a fault that the test wants.
        let function: extern "C" fn(usize) -> u32 = unsafe { std::mem::transmute(exclusive) };
        function(page as usize + 2);
    });
}

fn the_kernels() {
    let page = pages(1);
    attempt("read", page, || {
        peek(KERNEL as *const u8);
    });
    attempt("write", page, || poke(KERNEL.cast(), 1));
    attempt("the last byte of all", page, || {
        peek(usize::MAX as *const u8);
    });
    attempt("between the halves", page, || {
        peek(0x0080_0000_0000_0000 as *const u8);
    });
}

fn blocked_fault() {
    let status = in_child(|| {
        handle(SIGSEGV, show, 0);
        signal::block(SIGSEGV);
        peek(8 as *const u8);
        0
    });
    say!("{status}");
}

fn ignored_fault() {
    let status = in_child(|| {
        signal::ignore(SIGSEGV);
        peek(8 as *const u8);
        0
    });
    say!("{status}");
    let status = in_child(|| {
        signal::ignore(SIGSEGV);
        signal::kill_self(SIGSEGV);
        say!("sent, it is ignored");
        0
    });
    say!("{status}");
}

extern "C" fn fault_again(_: i32, _: *const siginfo_t, _: *mut c_void) {
    say!("in the handler");
    peek(16 as *const u8);
}

fn fault_in_its_handler() {
    let status = in_child(|| {
        handle(SIGSEGV, fault_again, 0);
        peek(8 as *const u8);
        0
    });
    say!("{status}");
    let status = in_child(|| {
        handle(SIGSEGV, fault_again, SA_RESETHAND);
        peek(8 as *const u8);
        0
    });
    say!("SA_RESETHAND: {status}");
}

fn fault_in_a_call() {
    handle(SIGSEGV, signal::count, 0);
    let ret: Ret = sys!(SYS_read, 0, 8, 10);
    say!("read to nowhere: {}", ret.ok() || ret.errno() == EFAULT);
    say!("write from nowhere: {}", sys!(SYS_write, crate::file::pipe()[1], 8, 10));
    say!("no signal: {}", signal::caught());
}

static PAGES: AtomicUsize = AtomicUsize::new(0);

extern "C" fn repair(_: i32, info: *const siginfo_t, _: *mut c_void) {
    signal::CAUGHT.fetch_add(1, SeqCst);
    // SAFETY: the handler's record.
    let address = unsafe { (*info).si_addr() as usize };
    sys!(SYS_mprotect, address & !(PAGE - 1), PAGE, PROT_READ | PROT_WRITE);
}

fn repaired() {
    let page = pages(4);
    PAGES.store(page as usize, SeqCst);
    sys!(SYS_mprotect, page, 4 * PAGE, PROT_NONE);
    handle(SIGSEGV, repair, 0);
    for index in 0..4 {
        poke(page.wrapping_add(index * PAGE + 3), index as u8 + 1);
    }
    say!("instructions are done again: {}", signal::caught());
    let values: Vec<u8> = (0..4).map(|index| peek(page.wrapping_add(index * PAGE + 3))).collect();
    say!("{values:?}");
}

fn guard_of_the_stack() {
    fn deep(left: usize) -> u8 {
        let block = std::hint::black_box([left as u8; 4096]);
        if left == 0 { block[0] } else { deep(left - 1).wrapping_add(block[left % 4096]) }
    }
    let status = in_child(|| {
        let limit = rlimit { rlim_cur: 1 << 20, rlim_max: RLIM_INFINITY };
        sys!(SYS_setrlimit, RLIMIT_STACK, &limit);
        let stack = stack_t { ss_sp: pages(16).cast(), ss_flags: 0, ss_size: 16 * PAGE };
        sys!(SYS_sigaltstack, &stack, 0);
        handle(SIGSEGV, show, SA_ONSTACK);
        i32::from(deep(1000))
    });
    say!("{status}");
}

fn stack_that_grows() {
    let page = memory::map(16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as *mut u8;
    sys!(SYS_munmap, page, 16 * PAGE);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE;
    let low = page.wrapping_add(15 * PAGE);
    say!("{}", memory::map_at(low.cast(), PAGE, PROT_READ | PROT_WRITE, flags, -1, 0).0 == low as i64);
    attempt("just below", page, || {
        poke(low.wrapping_sub(8), 1);
        say!("it has grown: {}", peek(low.wrapping_sub(8)));
    });
}

fn of_a_thread() {
    let status = in_child(|| {
        handle(SIGSEGV, show_thread, 0);
        let thread = std::thread::spawn(|| {
            sys!(SYS_prctl, PR_SET_NAME, c"faulty", 0, 0, 0);
            peek(8 as *const u8)
        });
        let _ = thread.join();
        0
    });
    say!("{status}");
}

extern "C" fn show_thread(_: i32, _: *const siginfo_t, _: *mut c_void) {
    let mut name = [0u8; 16];
    sys!(SYS_prctl, PR_GET_NAME, &mut name, 0, 0, 0);
    say!("in the thread: {}", String::from_utf8_lossy(&name).trim_end_matches('\0'));
    process::exit(0);
}

fn privileged() {
    for (name, instruction) in [
        ("msr daifset", 0xd503_4fdfu32),
        ("mrs ttbr0_el1", 0xd538_2000),
        ("eret", 0xd69f_03e0),
        ("tlbi", 0xd508_871f),
        ("mrs ctr_el0", 0xd53b_0020),
        ("mrs cntvct_el0", 0xd53b_e040),
        ("mrs midr_el1", 0xd538_0000),
        ("dc zva of 0", 0xd50b_743f),
        ("msr tpidr_el0 of itself", 0xd503_201f),
    ] {
        let page = code(&[0xd503_201f, instruction]);
        attempt(name, page, || call(page));
    }
}

fn sent_like_a_fault() {
    let status = in_child(|| {
        handle(SIGSEGV, signal::count, 0);
        signal::kill_self(SIGSEGV);
        say!("sent: {}, code {}", signal::caught(), signal::LAST_CODE.load(SeqCst));
        signal::block(SIGSEGV);
        signal::kill_self(SIGSEGV);
        say!("sent and blocked: {}", signal::names(signal::pending()));
        0
    });
    say!("{status}");
}
