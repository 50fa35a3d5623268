//! User threads. A program is an async function; what it awaits is a trap: the kernel's `enter_user` polls it until it makes a
//! system call, touches memory that is not there, or an interrupt comes.
//!
//! The registers are real, so the kernel can do everything to a thread that it does on the machine. A thread is a stack of
//! `Context`s: the program, and above it the signal handlers that interrupted each other. The program counter tells which
//! one the kernel returns to:
//!
//! ```text
//!   token          before the SVC of a context: also where a call is made again that was interrupted
//!   token + 4      behind it
//!   HANDLERS + n   the entry of a handler: becomes a new context
//!   IMAGES + n     the entry of a program that was executed: the thread starts anew
//! ```
//!
//! A new thread or process is a copy of its parent's registers; x19 names what it runs. FP registers carry the token as
//! well, and all of them are checked on each return.

mod calls;
mod describe;
mod image;
pub mod memory;
pub mod pi;
pub mod sync;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as PollContext, Poll, Waker};

use pollux_kernel::arch::{self, Access, FpRegs, MAX_CPUS, Trap, UserFault, UserRegs};
use pollux_kernel::exec::Entity;
use pollux_kernel::{process, syscalls};

pub use calls::{Sys, U, errno};
pub use describe::describe_all;
pub use image::{bring_up, image_path, set_init};

use crate::machine;

/// What a thread runs; answers its exit status.
pub type Program = Box<dyn FnOnce(U) -> Pin<Box<dyn Future<Output = i32>>>>;
type Handler = Rc<dyn Fn(U, i32) -> Pin<Box<dyn Future<Output = i32>>>>;

/// Makes a program of an async closure.
pub fn program<F: Future<Output = i32> + 'static>(body: impl FnOnce(U) -> F + 'static) -> Program {
    Box::new(move |u| Box::pin(body(u)))
}

const HANDLERS: u64 = 0x10_0000_0000;
const IMAGES: u64 = 0x40_0000;
const TOKENS: u64 = 0x20_0000_0000;
/// Memory above the stack pointer that a context has for the arguments of its calls.
const SCRATCH: u64 = 16 << 10;
const HANDLER_SCRATCH: u64 = 4 << 10;

const NR_EXIT: u64 = 93;
const NR_EXIT_GROUP: u64 = 94;
const NR_SIGRETURN: u64 = 139;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Process,
    Thread,
    Handler,
}

/// What a context waits for.
enum Await {
    /// It has not run yet.
    Start,
    /// To be polled again.
    Turn,
    /// A system call; the registers with which it was made, and words for reports.
    Call(Box<UserRegs>, String),
}

struct Context {
    token: u64,
    kind: Kind,
    future: Pin<Box<dyn Future<Output = i32>>>,
    awaits: Await,
    /// Memory for the arguments of its calls: address and size. The stack pointer is the address.
    scratch: (u64, u64),
    /// How much of it is taken.
    used: u64,
}

struct UserThread {
    pid: u32,
    /// Nobody else has it when the thread has ended.
    entity: Arc<Entity>,
    contexts: Vec<Context>,
}

impl UserThread {
    /// The one that runs on this CPU.
    fn current(contexts: Vec<Context>) -> UserThread {
        let ids = process::with_current(|task| task.map(|task| (task.process().pid, task.entity.clone())));
        let (pid, entity) = ids.expect("a thread runs");
        UserThread { pid, entity, contexts }
    }
}

#[derive(Default)]
struct Users {
    /// By thread id.
    threads: BTreeMap<u32, UserThread>,
    /// What new threads will run, by x19, with the token of the context that made them.
    unborn: BTreeMap<u64, (u64, Kind, Program)>,
    handlers: Vec<Handler>,
    images: Vec<Box<dyn Fn() -> Program>>,
    tokens: u64,
}

std::thread_local! {
    static USERS: RefCell<Users> = RefCell::default();
    /// The context that each CPU polls.
    static NOW: RefCell<[Option<Now>; MAX_CPUS]> = const { RefCell::new([const { None }; MAX_CPUS]) };
}

/// How a context's future and `enter_user` talk.
struct Now {
    tid: u32,
    token: u64,
    scratch: (u64, u64),
    used: u64,
    request: Option<Request>,
    answer: Option<i64>,
}

enum Request {
    Call { number: u64, args: [u64; 6], child: Option<u64> },
    Fault(UserFault),
    Interrupt,
}

fn users<R>(access: impl FnOnce(&mut Users) -> R) -> R {
    USERS.with_borrow_mut(access)
}

fn now<R>(access: impl FnOnce(&mut Now) -> R) -> R {
    NOW.with_borrow_mut(|now| access(now[arch::cpu_id()].as_mut().expect("not in a user thread")))
}

impl Users {
    fn token(&mut self) -> u64 {
        self.tokens += 1;
        TOKENS + 16 * self.tokens
    }
}

/// What `arch::enter_user` is on this machine.
pub fn enter_user(regs: &mut UserRegs) -> Trap {
    machine::switch_point();
    if arch::irq::is_pending() {
        arch::irq::service_pending();
        return Trap::Interrupt;
    }
    machine::progress();
    let tid = process::with_current(|task| task.map_or(0, |task| task.tid()));
    let mut context = match users(|users| users.enter(tid, regs)) {
        Ok(context) => context,
        Err(why) => machine::fail(format!("thread {tid}: {why}")),
    };
    let answer = match std::mem::replace(&mut context.awaits, Await::Turn) {
        Await::Start => None,
        Await::Turn => {
            check_fp(tid, context.token);
            None
        }
        Await::Call(_, what) if regs.pc == context.token => {
            // An interrupted call is made again.
            machine::trace(format!("again {}", syscalls::name(regs.x[8])));
            regs.pc += 4;
            context.awaits = Await::Call(Box::new(*regs), what);
            users(|users| users.leave(tid, context));
            return Trap::Syscall;
        }
        Await::Call(made, _) => {
            check_fp(tid, context.token);
            check_registers(tid, &made, regs);
            regs.pc = context.token;
            machine::trace(format!("      = {}", errno(regs.x[0] as i64)));
            Some(regs.x[0] as i64)
        }
    };
    poll(tid, context, regs, answer)
}

/// Runs the context until it traps.
fn poll(tid: u32, mut context: Context, regs: &mut UserRegs, answer: Option<i64>) -> Trap {
    let Context { token, scratch, used, .. } = context;
    let now = Now { tid, token, scratch, used, request: None, answer };
    NOW.with_borrow_mut(|all| all[arch::cpu_id()] = Some(now));
    let polled = context.future.as_mut().poll(&mut PollContext::from_waker(Waker::noop()));
    let now = NOW.with_borrow_mut(|all| all[arch::cpu_id()].take()).expect("set above");
    context.used = now.used;
    let request = match (polled, now.request) {
        (Poll::Pending, Some(request)) => request,
        (Poll::Pending, None) => machine::fail("a program awaits what is no trap"),
        (Poll::Ready(status), _) => {
            // A handler returns with the stack as it found it.
            regs.sp = scratch.0 + scratch.1;
            end(context.kind, status)
        }
    };
    match request {
        Request::Interrupt => {
            users(|users| users.leave(tid, context));
            arch::irq::service_pending();
            Trap::Interrupt
        }
        Request::Fault(UserFault { addr, access }) => {
            users(|users| users.leave(tid, context));
            Trap::PageFault { addr, access, esr: syndrome(access) }
        }
        Request::Call { number, args, child } => {
            regs.x[8] = number;
            regs.x[..6].copy_from_slice(&args);
            if let Some(child) = child {
                regs.x[19] = child;
            }
            regs.pc = token + 4;
            let what = format!("{}({})", syscalls::name(number), describe::arguments(number, &args));
            machine::trace(what.clone());
            context.awaits = Await::Call(Box::new(*regs), what);
            users(|users| {
                if number == NR_SIGRETURN {
                    // The frame is all that is left of it.
                    drop(context);
                } else {
                    users.leave(tid, context);
                }
            });
            Trap::Syscall
        }
    }
}

/// What the end of a context's function means.
fn end(kind: Kind, status: i32) -> Request {
    let number = match kind {
        Kind::Process => NR_EXIT_GROUP,
        Kind::Thread => NR_EXIT,
        Kind::Handler => NR_SIGRETURN,
    };
    Request::Call { number, args: [status as u64, 0, 0, 0, 0, 0], child: None }
}

impl Users {
    /// Takes out the context that the registers point to.
    fn enter(&mut self, tid: u32, regs: &mut UserRegs) -> Result<Context, String> {
        if regs.pc >= IMAGES && regs.pc < IMAGES + 16 * self.images.len() as u64 {
            let program = self.images[((regs.pc - IMAGES) / 16) as usize]();
            let token = self.token();
            let mut context = Context::new(token, Kind::Process, program(U), SCRATCH);
            context.begin(regs);
            self.threads.insert(tid, UserThread::current(Vec::new()));
            return Ok(context);
        }
        if !self.threads.contains_key(&tid) {
            let (token, kind, program) =
                self.unborn.remove(&regs.x[19]).ok_or("it runs, and nobody has made it".to_string())?;
            let first = Context::new(token, kind, program(U), SCRATCH);
            self.threads.insert(tid, UserThread::current(vec![first]));
        }
        if regs.pc >= HANDLERS && regs.pc < HANDLERS + 16 * self.handlers.len() as u64 {
            let handler = self.handlers[((regs.pc - HANDLERS) / 16) as usize].clone();
            let token = self.token();
            let signal = regs.x[0] as i32;
            machine::trace(format!("handler of signal {signal}"));
            let mut context = Context::new(token, Kind::Handler, handler(U, signal), HANDLER_SCRATCH);
            context.begin(regs);
            return Ok(context);
        }
        let contexts = &mut self.threads.get_mut(&tid).ok_or("gone")?.contexts;
        let found = contexts.iter().position(|context| regs.pc & !15 == context.token);
        let index = found.ok_or_else(|| format!("the kernel returned to {:#x}, where nothing is", regs.pc))?;
        let mut context = contexts.remove(index);
        if matches!(context.awaits, Await::Start) {
            context.begin(regs);
        }
        Ok(context)
    }

    fn leave(&mut self, tid: u32, context: Context) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.contexts.push(context);
        }
    }
}

impl Context {
    fn new(token: u64, kind: Kind, future: Pin<Box<dyn Future<Output = i32>>>, scratch: u64) -> Context {
        Context { token, kind, future, awaits: Await::Start, scratch: (0, scratch), used: 0 }
    }

    /// The kernel returns to it for the first time.
    fn begin(&mut self, regs: &mut UserRegs) {
        regs.sp = (regs.sp - self.scratch.1) & !15;
        regs.pc = self.token;
        self.scratch.0 = regs.sp;
        let mut fp = FpRegs::default();
        fp.v[0] = self.token.into();
        fp.v[31] = u128::from(self.token) << 64;
        arch::fp::restore(&fp);
    }
}

/// The FP registers belong to the context.
fn check_fp(tid: u32, token: u64) {
    let mut fp = FpRegs::default();
    arch::fp::save(&mut fp);
    if fp.v[0] != u128::from(token) || fp.v[31] != u128::from(token) << 64 {
        machine::fail(format!("thread {tid}: FP registers {:#x} {:#x} instead of {token:#x}", fp.v[0], fp.v[31]));
    }
}

/// A call changes x0 only; and x8 if it is made again as restart_syscall.
fn check_registers(tid: u32, made: &UserRegs, now: &UserRegs) {
    let differs = (1..31).find(|&index| index != 8 && made.x[index] != now.x[index]);
    if let Some(index) = differs {
        machine::fail(format!("thread {tid}: x{index} was {:#x} and is {:#x}", made.x[index], now.x[index]));
    }
    if (made.sp, made.tpidr) != (now.sp, now.tpidr) {
        machine::fail(format!("thread {tid}: stack or thread pointer changed in a call"));
    }
}

/// ESR_EL1 of an abort from EL0: class, and a translation fault at level 3.
fn syndrome(access: Access) -> u64 {
    const LEVEL_3: u64 = 0x7;
    match access {
        Access::Execute => 0x20 << 26 | LEVEL_3,
        Access::Read => 0x24 << 26 | LEVEL_3,
        Access::Write => 0x24 << 26 | 1 << 6 | LEVEL_3,
    }
}
