//! Frames of signal handlers: stacks, registers, and what a handler may change (sigaltstack(2), sigreturn(2)).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use libc::*;

use crate::memory::{PAGE, pages};
use crate::process::in_child;
use crate::signal::{self, caught, context, handle, kill_self};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    alternate_stack, stack_errors, stack_in_use, automatic_disarming, nested_on_the_stack, stack_too_small, no_stack_left,
    arguments, changed_registers, changed_counter, changed_stack_pointer, vector_registers, flags_register,
    changed_mask, frame_of_garbage, frame_out_of_reach, handler_nowhere, no_information_asked, alternate_stack_of_threads,
}

static SP: AtomicUsize = AtomicUsize::new(0);
static STACK_FLAGS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stack(_: i32, _: *const siginfo_t, _: *mut c_void) {
    let here = 0u8;
    SP.store(&raw const here as usize, SeqCst);
    let mut stack: stack_t = zeroed();
    sys!(SYS_sigaltstack, 0, &mut stack);
    STACK_FLAGS.store(stack.ss_flags as usize, SeqCst);
}

fn set_stack(place: *mut u8, flags: i32, size: usize) -> Ret {
    sys!(SYS_sigaltstack, &stack_t { ss_sp: place.cast(), ss_flags: flags, ss_size: size }, 0)
}

fn get_stack() -> stack_t {
    let mut stack: stack_t = zeroed();
    sys!(SYS_sigaltstack, 0, &mut stack);
    stack
}

/// Was the last handler on this stack?
fn was_on(place: *mut u8, size: usize) -> bool {
    (place as usize..place as usize + size).contains(&SP.load(SeqCst))
}

fn alternate_stack() {
    let place = pages(8);
    say!("set: {}", set_stack(place, 0, 8 * PAGE));
    let now = get_stack();
    say!("get: {} {} {}", now.ss_sp.cast() == place, now.ss_flags, now.ss_size);
    handle(SIGUSR1, note_stack, 0);
    kill_self(SIGUSR1);
    say!("without SA_ONSTACK: {}, flags {}", was_on(place, 8 * PAGE), STACK_FLAGS.load(SeqCst));
    handle(SIGUSR1, note_stack, SA_ONSTACK);
    kill_self(SIGUSR1);
    say!("with it: {}, flags {}", was_on(place, 8 * PAGE), STACK_FLAGS.load(SeqCst));
    say!("after it: {}", get_stack().ss_flags);
    say!("disabled: {}", set_stack(std::ptr::null_mut(), SS_DISABLE, 0));
    let now = get_stack();
    say!("get: {} {} {}", now.ss_sp.is_null(), now.ss_flags, now.ss_size);
    kill_self(SIGUSR1);
    say!("SA_ONSTACK without a stack: {}", was_on(place, 8 * PAGE));
}

fn stack_errors() {
    let place = pages(8);
    set_stack(std::ptr::null_mut(), SS_DISABLE, 0);
    for size in [0, 2047, 2048, 5119, 5120, 8192] {
        say!("{size} bytes: {}", set_stack(place, 0, size));
    }
    for flags in [SS_ONSTACK, 4, 3, -1, i32::MIN] {
        say!("flags {flags:#x}: {}", set_stack(place, flags, 8192));
    }
    say!("from nowhere: {}", sys!(SYS_sigaltstack, NOWHERE, 0));
    say!("to nowhere: {}", sys!(SYS_sigaltstack, 0, NOWHERE));
    say!("neither: {}", sys!(SYS_sigaltstack, 0, 0));
    say!("a stack that is not mapped: {}", set_stack(NOWHERE.cast(), 0, 8192));
    let mut old: stack_t = zeroed();
    let new = stack_t { ss_sp: place.cast(), ss_flags: 0, ss_size: 9000 };
    say!("old and new: {}, {} {}", sys!(SYS_sigaltstack, &new, &mut old), old.ss_sp as usize, old.ss_size);
    say!(
        "bad new one, the old one stored: {} {}",
        sys!(SYS_sigaltstack, &stack_t { ss_size: 1, ..new }, &mut old),
        old.ss_size
    );
    say!("set, and the old one to nowhere: {}", sys!(SYS_sigaltstack, &stack_t { ss_size: 9500, ..new }, NOWHERE));
    say!("it was set: {}", get_stack().ss_size);
}

extern "C" fn change_stack(_: i32, _: *const siginfo_t, _: *mut c_void) {
    say!("another, in a handler on it: {}", set_stack(pages(4), 0, 4 * PAGE));
    say!("disabled, in a handler on it: {}", set_stack(std::ptr::null_mut(), SS_DISABLE, 0));
    let now = get_stack();
    say!("the same: {}", sys!(SYS_sigaltstack, &stack_t { ss_flags: 0, ..now }, 0));
}

fn stack_in_use() {
    set_stack(pages(16), 0, 16 * PAGE);
    handle(SIGUSR1, change_stack, SA_ONSTACK);
    kill_self(SIGUSR1);
    say!("afterwards: {}", set_stack(pages(4), 0, 4 * PAGE));
}

const AUTODISARM: i32 = i32::MIN;

extern "C" fn look_disarmed(_: i32, _: *const siginfo_t, _: *mut c_void) {
    let now = get_stack();
    say!("in the handler: {} {}", now.ss_flags, now.ss_size);
    say!("another may be set: {}", set_stack(pages(4), 0, 4 * PAGE));
}

fn automatic_disarming() {
    let place = pages(16);
    say!("set: {}", set_stack(place, AUTODISARM, 16 * PAGE));
    say!("get: {:#x}", get_stack().ss_flags);
    handle(SIGUSR1, look_disarmed, SA_ONSTACK);
    kill_self(SIGUSR1);
    let now = get_stack();
    say!("after it: {:#x} {} {}", now.ss_flags, now.ss_size, now.ss_sp.cast() == place);
    say!("with SS_ONSTACK: {}", set_stack(place, AUTODISARM | SS_ONSTACK, 16 * PAGE));
    say!("with SS_DISABLE: {}, {:#x}", set_stack(place, AUTODISARM | SS_DISABLE, 16 * PAGE), get_stack().ss_flags);
}

extern "C" fn again(signal: i32, info: *const siginfo_t, at: *mut c_void) {
    note_stack(signal, info, at);
    let first = SP.load(SeqCst);
    if signal == SIGUSR1 {
        kill_self(SIGUSR2);
        say!("a second handler goes on below: {}", SP.load(SeqCst) < first);
    }
}

fn nested_on_the_stack() {
    let place = pages(16);
    set_stack(place, 0, 16 * PAGE);
    handle(SIGUSR1, again, SA_ONSTACK);
    handle(SIGUSR2, again, SA_ONSTACK);
    kill_self(SIGUSR1);
    say!("on the same stack: {}", was_on(place, 16 * PAGE));
}

extern "C" fn endless(_: i32, _: *const siginfo_t, _: *mut c_void) {
    kill_self(SIGUSR1);
}

fn stack_too_small() {
    let status = in_child(|| {
        let place = pages(3);
        sys!(SYS_mprotect, place, PAGE, PROT_NONE);
        set_stack(place.wrapping_add(PAGE), 0, 2 * PAGE);
        signal::default(SIGSEGV);
        handle(SIGUSR1, endless, SA_ONSTACK | SA_NODEFER);
        kill_self(SIGUSR1);
        0
    });
    say!("handlers until the stack is full: {status}");
    let status = in_child(|| {
        set_stack(NOWHERE.cast(), 0, 2 * PAGE);
        signal::default(SIGSEGV);
        handle(SIGUSR1, note_stack, SA_ONSTACK);
        kill_self(SIGUSR1);
        0
    });
    say!("a stack that is not there: {status}");
}

/// Fills the stack.
fn deep(left: usize) -> u8 {
    let block = std::hint::black_box([left as u8; 4096]);
    if left == 0 { block[0] } else { deep(left - 1).wrapping_add(block[left % 4096]) }
}

extern "C" fn overflow(_: i32, _: *const siginfo_t, _: *mut c_void) {
    say!("a handler on another stack");
    crate::process::exit(4);
}

fn no_stack_left() {
    let run = |flags: i32| {
        in_child(|| {
            let limit = rlimit { rlim_cur: 1 << 20, rlim_max: RLIM_INFINITY };
            sys!(SYS_setrlimit, RLIMIT_STACK, &limit);
            set_stack(pages(16), 0, 16 * PAGE);
            handle(SIGSEGV, overflow, flags);
            i32::from(deep(2000))
        })
    };
    say!("SA_ONSTACK: {}", run(SA_ONSTACK));
    say!("without: {}", run(0));
}

extern "C" fn look_at_arguments(signal: i32, info: *const siginfo_t, at: *mut c_void) {
    // SAFETY: the record is the handler's.
    say!("signal {signal}, in the record {}", unsafe { (*info).si_signo });
    let context = context(at);
    say!("flags {}, link {}, mask {}", context.flags, context.link, signal::names(context.mask));
    say!("stack {} {}", context.stack.ss_flags, context.stack.ss_size);
    say!("fault address {:#x}", context.fault_address);
    // The FP record comes first: its magic and size.
    // SAFETY: the reserved part of the frame is behind pstate, at a multiple of 16.
    let record = unsafe { *(std::ptr::from_ref(context) as *const u8).add(464).cast::<[u32; 2]>() };
    say!("first record {:#x}, {} bytes", record[0], record[1]);
    say!("record, context and stack: {} {}", info as usize % 16, at as usize % 16);
    say!("the program's stack is above: {}", context.sp > at as u64);
    say!("state {:#x}", context.pstate & 0xfff_ffff);
}

fn arguments() {
    set_stack(std::ptr::null_mut(), SS_DISABLE, 0);
    signal::block(SIGHUP);
    handle(SIGUSR1, look_at_arguments, 0);
    kill_self(SIGUSR1);
}

/// `brk #1` with the value in x19, and what is in x19 after it.
#[cfg(target_arch = "aarch64")]
fn through_a_trap(value: u64) -> u64 {
    let result: u64;
    // SAFETY: the handler goes on behind the instruction.
    unsafe {
        std::arch::asm!("mov x20, {0}", "brk #1", "mov {1}, x20", in(reg) value, out(reg) result, out("x20") _);
    }
    result
}

#[cfg(not(target_arch = "aarch64"))]
fn through_a_trap(value: u64) -> u64 {
    value
}

extern "C" fn step_over(_: i32, _: *const siginfo_t, at: *mut c_void) {
    let context = context(at);
    context.registers[20] = context.registers[20].wrapping_mul(2);
    context.pc += 4;
}

fn changed_registers() {
    handle(SIGTRAP, step_over, 0);
    say!("a register that a handler doubles: {}", through_a_trap(21));
    say!("all its bits: {:#x}", through_a_trap(0x4000_0000_0000_0001));
}

extern "C" fn landed() {
    say!("the program goes on where the handler says");
    crate::process::exit(7);
}

extern "C" fn go_elsewhere(_: i32, _: *const siginfo_t, at: *mut c_void) {
    context(at).pc = landed as *const () as u64;
}

fn changed_counter() {
    handle(SIGUSR1, go_elsewhere, 0);
    let status = in_child(|| {
        kill_self(SIGUSR1);
        0
    });
    say!("{status}");
    for (name, handler) in [
        ("to nowhere", (|context| context.pc = 8) as fn(&mut signal::Context)),
        ("to the kernel", |context| context.pc = 0xffff_0000_0000_1000),
        ("not aligned", |context| context.pc += 2),
    ] {
        CHANGE.store(handler as *const () as usize, SeqCst);
        let status = in_child(|| {
            signal::default(SIGSEGV);
            signal::default(SIGBUS);
            handle(SIGUSR1, change, 0);
            kill_self(SIGUSR1);
            0
        });
        say!("{name}: {status}");
    }
}

static CHANGE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn change(_: i32, _: *const siginfo_t, at: *mut c_void) {
    // SAFETY: one of the functions that the test has put there.
    let function: fn(&mut signal::Context) = unsafe { std::mem::transmute(CHANGE.load(SeqCst)) };
    function(context(at));
}

fn changed_stack_pointer() {
    for (name, handler) in [
        ("the kernel's state", (|context| context.pstate = 5) as fn(&mut signal::Context)),
        ("32-bit state", |context| context.pstate = 0x10),
        ("interrupts masked", |context| context.pstate |= 0x80),
        ("condition flags", |context| context.pstate |= 0xf000_0000),
        ("a stack pointer nowhere", |context| context.sp = 16),
    ] {
        CHANGE.store(handler as *const () as usize, SeqCst);
        let status = in_child(|| {
            signal::default(SIGSEGV);
            handle(SIGUSR1, change, 0);
            kill_self(SIGUSR1);
            0
        });
        say!("{name}: {status}");
    }
}

/// Puts a value into a vector register, raises a signal and looks again.
#[cfg(target_arch = "aarch64")]
fn through_vectors(value: u64) -> [u64; 3] {
    let (low, high, scalar): (u64, u64, u64);
    // SAFETY: a system call (getpid's kill is done by the trap) that changes no memory of ours.
    unsafe {
        std::arch::asm!(
            "dup v8.2d, {0}",
            "add x20, {0}, #1",
            "fmov d31, x20",
            "mov v8.d[1], x20",
            "brk #1",
            "umov {1}, v8.d[0]",
            "umov {2}, v8.d[1]",
            "fmov {3}, d31",
            in(reg) value, out(reg) low, out(reg) high, out(reg) scalar,
            out("x20") _, out("v8") _, out("v31") _,
        );
    }
    [low, high, scalar]
}

#[cfg(not(target_arch = "aarch64"))]
fn through_vectors(value: u64) -> [u64; 3] {
    [value, value + 1, value + 1]
}

#[cfg(target_arch = "aarch64")]
extern "C" fn spoil_vectors(_: i32, _: *const siginfo_t, at: *mut c_void) {
    context(at).pc += 4;
    // SAFETY: they are the handler's to change.
    unsafe { std::arch::asm!("movi v8.2d, #0", "movi v31.2d, #0", out("v8") _, out("v31") _) };
    sys!(SYS_sched_yield);
}

#[cfg(not(target_arch = "aarch64"))]
extern "C" fn spoil_vectors(_: i32, _: *const siginfo_t, _: *mut c_void) {}

extern "C" fn change_vectors(_: i32, _: *const siginfo_t, at: *mut c_void) {
    let context = context(at);
    context.pc += 4;
    // The registers are behind the record's head of 16 bytes: v8's lower half.
    // SAFETY: a live frame.
    unsafe { *std::ptr::from_mut(context).cast::<u8>().add(464 + 16 + 8 * 16).cast::<u64>() = 99 };
}

fn vector_registers() {
    handle(SIGTRAP, spoil_vectors, 0);
    say!("kept over a handler that uses them: {:x?}", through_vectors(0x1122_3344_5566_7788));
    handle(SIGTRAP, change_vectors, 0);
    say!("changed in the frame: {:x?}", through_vectors(0x10));
}

#[cfg(target_arch = "aarch64")]
fn flags_through_a_trap() -> u64 {
    let flags: u64;
    // SAFETY: as above.
    unsafe { std::arch::asm!("cmp {0}, {0}", "brk #1", "mrs {1}, nzcv", in(reg) 5u64, out(reg) flags) };
    flags
}

#[cfg(not(target_arch = "aarch64"))]
fn flags_through_a_trap() -> u64 {
    0
}

fn flags_register() {
    handle(SIGTRAP, spoil_vectors, 0);
    say!("condition flags over a handler: {:#x}", flags_through_a_trap());
}

extern "C" fn block_in_frame(_: i32, _: *const siginfo_t, at: *mut c_void) {
    context(at).mask = u64::MAX;
}

fn changed_mask() {
    handle(SIGUSR1, block_in_frame, 0);
    kill_self(SIGUSR1);
    say!("all but: {}", signal::names(!signal::mask(SIG_BLOCK, 0)));
}

fn frame_of_garbage() {
    let status = in_child(|| {
        signal::default(SIGSEGV);
        sys!(SYS_rt_sigreturn);
        0
    });
    say!("sigreturn without a frame: {status}");
    for (name, offset, value) in
        [("another magic", 464usize, 0x1234u32), ("another size", 468, 7), ("no record at all", 464, 0)]
    {
        OFFSET.store(offset as u64, SeqCst);
        VALUE.store(u64::from(value), SeqCst);
        let status = in_child(|| {
            signal::default(SIGSEGV);
            handle(SIGUSR1, spoil_frame, 0);
            kill_self(SIGUSR1);
            0
        });
        say!("{name}: {status}");
    }
}

static OFFSET: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);

extern "C" fn spoil_frame(_: i32, _: *const siginfo_t, at: *mut c_void) {
    // SAFETY: a word of the frame.
    unsafe { at.cast::<u8>().add(OFFSET.load(SeqCst) as usize).cast::<u32>().write(VALUE.load(SeqCst) as u32) };
}

extern "C" fn count_segv(_: i32, _: *const siginfo_t, _: *mut c_void) {
    say!("SIGSEGV is handled on its own stack");
    crate::process::exit(3);
}

fn frame_out_of_reach() {
    let status = in_child(|| {
        // SIGUSR1 has no room for its frame: SIGSEGV comes instead, and has none either.
        set_stack(NOWHERE.cast(), 0, 4 * PAGE);
        handle(SIGSEGV, count_segv, SA_ONSTACK);
        handle(SIGUSR1, signal::count, SA_ONSTACK);
        kill_self(SIGUSR1);
        0
    });
    say!("neither: {status}");
    let status = in_child(|| {
        set_stack(NOWHERE.cast(), 0, 4 * PAGE);
        handle(SIGSEGV, count_segv, 0);
        handle(SIGUSR1, signal::count, SA_ONSTACK);
        kill_self(SIGUSR1);
        0
    });
    say!("SIGSEGV has: {status}");
}

fn handler_nowhere() {
    let status = in_child(|| {
        signal::default(SIGSEGV);
        let new = signal::Action { handler: 8, flags: 0, restorer: 0, mask: 0 };
        signal::action(SIGUSR1, Some(&new), None);
        kill_self(SIGUSR1);
        0
    });
    say!("{status}");
}

extern "C" fn plain(signal: i32) {
    signal::CAUGHT.fetch_add(signal, SeqCst);
}

fn no_information_asked() {
    let new = signal::Action { handler: plain as *const () as usize, flags: 0, restorer: 0, mask: 0 };
    signal::action(SIGUSR1, Some(&new), None);
    kill_self(SIGUSR1);
    say!("without SA_SIGINFO: {}", caught());
}

fn alternate_stack_of_threads() {
    let place = pages(16);
    set_stack(place, 0, 16 * PAGE);
    handle(SIGUSR1, note_stack, SA_ONSTACK);
    let thread = std::thread::spawn(move || {
        set_stack(std::ptr::null_mut(), SS_DISABLE, 0);
        kill_self(SIGUSR1);
        let own = pages(16);
        set_stack(own, 0, 16 * PAGE);
        let before = SP.load(SeqCst);
        kill_self(SIGUSR1);
        (before, was_on(own, 16 * PAGE))
    });
    let (before, own) = thread.join().unwrap_or((0, false));
    say!("not the first thread's: {}", !(place as usize..place as usize + 16 * PAGE).contains(&before));
    say!("its own: {own}");
    kill_self(SIGUSR1);
    say!("the first thread's: {}", was_on(place, 16 * PAGE));
}
