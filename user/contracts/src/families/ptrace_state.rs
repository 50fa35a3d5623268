//! ptrace(2): registers and memory of a stopped thread, breakpoints, single steps.

use libc::*;

use crate::memory::{self, PAGE, map, pages, peek as look, poke};
use crate::process;
use crate::signal;
use crate::sys::{NOWHERE, sys};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    general_registers, partial_sets, sizes_refused, unknown_sets, pstate_refused, fp_registers, tls, no_debug_registers, words, words_across_pages, words_with_tags,
    memory_not_there, protected_memory, shared_read_only, text_is_copied, by_proc_mem, breakpoint, steps, step_over_a_call, step_into_a_handler, step_is_not_inherited,
    step_from_detach, file_untouched, after_fork,
}

unsafe extern "C" {
    fn contract_steps();
}

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".balign 8",
    ".globl contract_steps",
    "contract_steps:",
    "mov x9, #1",
    "mov x9, #2",
    "mov x9, #3",
    "mov x0, #0",
    "mov x8, #172",
    "svc 0",
    "nop",
    "nop",
    "mov x0, #5",
    "mov x8, #94",
    "svc 0",
);

#[cfg(not(target_arch = "aarch64"))]
std::arch::global_asm!(".globl contract_steps", "contract_steps:", "nop");

fn steps_at() -> usize {
    contract_steps as *const () as usize
}

/// A tracee that will go through the steps.
fn stepper() -> i32 {
    let pid = tracee(idle);
    let mut registers = registers(pid);
    registers.pc = steps_at() as u64;
    set_registers(pid, registers).need();
    pid
}

fn place(pid: i32) -> String {
    let registers = registers(pid);
    format!("at {}, x9 {}", registers.pc as i64 - steps_at() as i64, registers.x[9])
}

fn general_registers() {
    let pid = stepper();
    let mut changed = registers(pid);
    for (index, x) in changed.x.iter_mut().enumerate() {
        *x = index as u64 * 1000;
    }
    changed.sp = 0x1230;
    changed.pstate = 0xa000_0000;
    say!("{}", set_registers(pid, changed));
    let now = registers(pid);
    say!("{:?} {:#x} {:#x}", now.x == changed.x, now.sp, now.pstate);
    say!("{}", resume(SINGLESTEP, pid, 0));
    let now = registers(pid);
    say!("{} {:#x} {:#x}, others: {}", now.x[9], now.sp, now.pstate, now.x[10..] == changed.x[10..]);
    end(pid);
}

fn partial_sets() {
    let pid = tracee(idle);
    let before = registers(pid);
    let mut some = [1u64, 2, 3];
    say!("{:?}", length(set_of_registers(SETREGSET, pid, GENERAL, &mut some, 24)));
    let now = registers(pid);
    say!("{:?}, the rest: {}", &now.x[..3], now.x[3..] == before.x[3..]);
    let mut large = [0u64; 100];
    say!("{:?}", length(set_of_registers(GETREGSET, pid, GENERAL, &mut large, 800)));
    say!("{:?}", length(set_of_registers(GETREGSET, pid, GENERAL, &mut large, 0)));
    end(pid);
}

fn length((ret, length): (crate::sys::Ret, usize)) -> String {
    format!("{ret}, {length}")
}

fn sizes_refused() {
    let pid = tracee(idle);
    let mut buffer = [0u64; 100];
    for (kind, size) in
        [(GENERAL, 4), (GENERAL, 12), (FLOATING, 2), (FLOATING, 4), (THREAD_POINTER, 4), (CALL_NUMBER, 3)]
    {
        say!("{kind:#x}, {size}: {}", length(set_of_registers(GETREGSET, pid, kind, &mut buffer, size)));
    }
    end(pid);
}

fn unknown_sets() {
    let pid = tracee(idle);
    let mut buffer = [0u64; 100];
    for kind in [0, 3, 4, 6, 0x100, 0x400, 0x4ff, -1] {
        say!("{kind:#x}: {}", length(set_of_registers(GETREGSET, pid, kind, &mut buffer, 64)));
        say!("{kind:#x}: {}", length(set_of_registers(SETREGSET, pid, kind, &mut buffer, 64)));
    }
    end(pid);
}

fn pstate_refused() {
    let pid = tracee(idle);
    let before = registers(pid);
    for bits in [1u64, 4, 5, 0x10, 0x80, 0x3c0, 1 << 5, 1 << 13, 1 << 20, 1 << 21, 1 << 22, 1 << 26, 1 << 32, 1 << 63] {
        let ret = set_registers(pid, Registers { pstate: bits, ..before });
        say!("{bits:#x}: {ret}, {:#x}", registers(pid).pstate);
        set_registers(pid, before).need();
    }
    end(pid);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Fp {
    v: [u128; 32],
    fpsr: u32,
    fpcr: u32,
    reserved: [u32; 2],
}

fn fp_registers() {
    let pid = tracee(idle);
    let mut fp = Fp { v: [0; 32], fpsr: 1, fpcr: 1, reserved: [7; 2] };
    say!("{}", length(set_of_registers(GETREGSET, pid, FLOATING, &mut fp, size_of::<Fp>())));
    say!("{:?}", fp.reserved);
    for (index, v) in fp.v.iter_mut().enumerate() {
        *v = (index as u128) << 100 | 5;
    }
    fp.fpcr = 1 << 22;
    say!("{}", length(set_of_registers(SETREGSET, pid, FLOATING, &mut fp, size_of::<Fp>())));
    // They are kept while it runs and is stopped again.
    let mut now = registers(pid);
    now.pc = steps_at() as u64;
    set_registers(pid, now).need();
    say!("{}", resume(SINGLESTEP, pid, 0));
    let mut after = Fp { v: [0; 32], fpsr: 1, fpcr: 1, reserved: [7; 2] };
    set_of_registers(GETREGSET, pid, FLOATING, &mut after, size_of::<Fp>()).0.need();
    say!("{}, {:#x}", after.v == fp.v, after.fpcr);
    end(pid);
}

fn tls() {
    let pid = tracee(idle);
    let mut tls = [0u64; 2];
    say!("{}, there is one: {}", set_of_registers(GETREGSET, pid, THREAD_POINTER, &mut tls, 8).0, tls[0] != 0);
    tls[0] = 0x1234_5678;
    say!("{}", length(set_of_registers(SETREGSET, pid, THREAD_POINTER, &mut tls, 8)));
    tls[0] = 0;
    set_of_registers(GETREGSET, pid, THREAD_POINTER, &mut tls, 8).0.need();
    say!("{:#x}", tls[0]);
    end(pid);
}

fn no_debug_registers() {
    let pid = tracee(idle);
    let mut debug = [0u32; 66];
    for kind in [0x402, 0x403] {
        let (ret, length) = set_of_registers(GETREGSET, pid, kind, &mut debug, 264);
        say!("{ret}, {length}, architecture {}", debug[0] >> 8 & 0xff);
    }
    end(pid);
}

fn words() {
    let memory = pages(1);
    let at = memory as usize;
    poke(memory, 0x42);
    let pid = tracee(idle);
    say!("{}", peek(pid, at));
    say!("{}, {}, here {}", ptrace!(POKEDATA, pid, at, 0x1122_3344_5566_7788u64), peek(pid, at), look(memory));
    say!("unaligned: {}, {}", ptrace!(POKETEXT, pid, at + 3, 0u64), peek(pid, at));
    say!("with a tag: {}", peek(pid, at | 0xff << 56));
    end(pid);
}

fn words_across_pages() {
    let memory = pages(2);
    let at = memory as usize + PAGE - 4;
    let pid = tracee(idle);
    say!("{}, {}", ptrace!(POKEDATA, pid, at, 0x1122_3344_5566_7788u64), peek(pid, at));
    end(pid);
    sys!(SYS_munmap, memory.wrapping_add(PAGE), PAGE).need();
    let pid = tracee(idle);
    say!("half: {}, {}", ptrace!(POKEDATA, pid, at, 0), peek(pid, at));
    end(pid);
}

/// Who asks for a tagged address asks for one where nothing is, but by process_vm_readv(2).
fn words_with_tags() {
    let memory = pages(1);
    let at = memory as usize;
    poke(memory, 0x42);
    let pid = tracee(idle);
    let name = std::ffi::CString::new(format!("/proc/{pid}/mem")).unwrap_or_default();
    let file = sys!(SYS_openat, AT_FDCWD, name.as_c_str(), O_RDWR).fd();
    for tag in [0, 1usize << 56, 0x7f << 56, 0x80 << 56, 1 << 48] {
        let tagged = at | tag;
        say!("{tag:#x}: {}, {}", peek(pid, tagged), ptrace!(POKEDATA, pid, tagged, 0x42));
        let mut word = [0u8; 8];
        say!(
            "/proc/PID/mem: {}, {}",
            sys!(SYS_pread64, file, &mut word, 8, tagged),
            sys!(SYS_pwrite64, file, &word, 8, tagged)
        );
        let own = iovec { iov_base: word.as_mut_ptr().cast(), iov_len: 8 };
        let theirs = iovec { iov_base: tagged as *mut c_void, iov_len: 8 };
        say!("process_vm_readv: {}", sys!(SYS_process_vm_readv, pid, &own, 1, &theirs, 1, 0));
    }
    end(pid);
}

fn memory_not_there() {
    let pid = tracee(idle);
    for at in [0, 8, 0x0000_ffff_ffff_fff8, 0x0001_0000_0000_0000, 0xffff_0000_0000_1000] {
        say!("{at:#x}: {}, {}", peek(pid, at), ptrace!(POKEDATA, pid, at, 0));
    }
    let word = 0u64;
    say!("nowhere to store it: {}", ptrace!(PEEKDATA, pid, &word, NOWHERE));
    end(pid);
}

fn protected_memory() {
    for protection in [PROT_NONE, PROT_READ, PROT_EXEC] {
        let memory = pages(1);
        poke(memory, 0x11);
        sys!(SYS_mprotect, memory, PAGE, protection).need();
        let fresh = map(PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as usize;
        let pid = tracee(idle);
        for at in [memory as usize, fresh] {
            let before = peek(pid, at);
            say!("{protection}: {before}, {}, {}", ptrace!(POKEDATA, pid, at, 0x99), peek(pid, at));
        }
        end(pid);
        sys!(SYS_mprotect, memory, PAGE, PROT_READ).need();
        say!("the tracer has its own: {:#x}", look(memory));
    }
}

fn shared_read_only() {
    let memory = map(PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0).need() as usize;
    let pid = tracee(idle);
    say!("{}, {}", ptrace!(POKEDATA, pid, memory, 5), peek(pid, memory));
    end(pid);
    let memory = memory::shared_page();
    let pid = tracee(idle);
    say!("{}, seen here: {}", ptrace!(POKEDATA, pid, memory as usize, 5), look(memory));
    end(pid);
}

fn text_is_copied() {
    let pid = stepper();
    let own = look(steps_at() as *const u8);
    say!("{}", ptrace!(POKETEXT, pid, steps_at(), 0u64));
    say!("there: {}, here as before: {}", peek(pid, steps_at()), look(steps_at() as *const u8) == own);
    end(pid);
}

fn by_proc_mem() {
    let pid = stepper();
    let name = std::ffi::CString::new(format!("/proc/{pid}/mem")).unwrap_or_default();
    let file = sys!(SYS_openat, AT_FDCWD, name.as_c_str(), O_RDWR).fd();
    let mut word = [0u8; 8];
    let at = steps_at();
    say!("read: {}", sys!(SYS_pread64, file, &mut word, 8, at));
    say!("write to text: {}", sys!(SYS_pwrite64, file, &[0u8; 8], 8, at));
    say!("{}, here as before: {}", peek(pid, at), look(at as *const u8) == word[0]);
    end(pid);
}

/// BRK #0.
const BRK: u64 = 0xd420_0000;

fn breakpoint() {
    let pid = stepper();
    let at = steps_at() + 8;
    let old = peek(pid, at).1;
    ptrace!(POKETEXT, pid, at, old & !0xffff_ffff | BRK).need();
    say!("{}, {}", resume(CONT, pid, 0), place(pid));
    let mut info: siginfo_t = crate::sys::zeroed();
    ptrace!(GETSIGINFO, pid, 0, &mut info).need();
    // SAFETY: SIGTRAP has it.
    say!("code {}, address {}", info.si_code, unsafe { info.si_addr() } as usize - steps_at());
    ptrace!(POKETEXT, pid, at, old).need();
    say!("{}, {}", resume(SINGLESTEP, pid, 0), place(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn steps() {
    let pid = stepper();
    for _ in 0..3 {
        say!("{}, {}", resume(SINGLESTEP, pid, 0), place(pid));
    }
    let mut info: siginfo_t = crate::sys::zeroed();
    ptrace!(GETSIGINFO, pid, 0, &mut info).need();
    // SAFETY: SIGTRAP has it.
    say!("code {}, address {}", info.si_code, unsafe { info.si_addr() } as usize - steps_at());
    say!("pstate {:#x}", registers(pid).pstate >> 16 & 0xff);
    say!("{}", resume(CONT, pid, 0));
}

fn step_over_a_call() {
    let pid = stepper();
    let mut changed = registers(pid);
    changed.pc += 16;
    set_registers(pid, changed).need();
    let place = |pid: i32| registers(pid).pc as usize - steps_at();
    say!("{}, {}", resume(SINGLESTEP, pid, 0), place(pid));
    say!("the call: {}, {}, {}", resume(SINGLESTEP, pid, 0), place(pid), info(pid));
    // Linux for arm64 stops there once more.
    say!("{}, {}", resume(SINGLESTEP, pid, 0), place(pid));
    say!("{}, {}", resume(SINGLESTEP, pid, 0), place(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn step_into_a_handler() {
    let pid = tracee(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        signal::kill_self(SIGUSR1);
        signal::caught()
    });
    resume(CONT, pid, 0);
    ptrace!(SINGLESTEP, pid, 0, SIGUSR1).need();
    say!("{}, {}", wait(pid), info(pid));
    let handler = signal::count as *const () as usize;
    say!("at the handler: {}", registers(pid).pc as usize == handler);
    say!("{}, {}", resume(SINGLESTEP, pid, 0), registers(pid).pc as usize - handler);
    say!("{}", resume(CONT, pid, 0));
}

fn step_is_not_inherited() {
    let pid = tracee(|| {
        let pid = process::child(|| 0);
        i32::from(process::wait(pid) == process::Status::Exited(0))
    });
    let mut count = 0;
    let ended = loop {
        let next = resume(SINGLESTEP, pid, 0);
        count += 1;
        if !next.starts_with("stopped by SIGTRAP") && !next.starts_with("stopped by SIGCHLD") || count > 200_000 {
            break next;
        }
    };
    say!("{ended}, after many steps: {}", count > 50);
}

fn step_from_detach() {
    let pid = stepper();
    resume(SINGLESTEP, pid, 0);
    say!("{}, {}", ptrace!(DETACH, pid, 0, 0), process::wait(pid));
}

fn file_untouched() {
    std::fs::write("file", "what the file has").unwrap_or_default();
    let file = sys!(SYS_openat, AT_FDCWD, c"file", O_RDONLY).fd();
    let memory = map(PAGE, PROT_READ, MAP_PRIVATE, file, 0).need() as usize;
    let pid = tracee(idle);
    say!("{}, {}", ptrace!(POKEDATA, pid, memory, 0x4141_4141_4141_4141u64), peek(pid, memory));
    end(pid);
    say!("{:?}", std::fs::read_to_string("file").unwrap_or_default());
}

fn after_fork() {
    let memory = pages(1);
    poke(memory, 1);
    sys!(SYS_mprotect, memory, PAGE, PROT_READ).need();
    let at = memory as usize;
    let gate = process::Gate::new();
    // Three have the page; one gets another.
    let pid = tracee(|| {
        process::child(|| {
            gate.pass();
            say!("its child: {:#x}", look(at as *const u8));
            0
        });
        signal::kill_self(SIGUSR1);
        let seen = look(at as *const u8);
        gate.open();
        let mut status = 0;
        sys!(SYS_wait4, -1, &mut status, 0, 0);
        seen.into()
    });
    resume(CONT, pid, 0);
    say!("{}, {}", ptrace!(POKEDATA, pid, at, 0x77), peek(pid, at));
    let mut next = resume(CONT, pid, 0);
    while next.starts_with("stopped") {
        next = resume(CONT, pid, SIGCHLD);
    }
    say!("{next}; the tracer: {:#x}", look(memory));
}
