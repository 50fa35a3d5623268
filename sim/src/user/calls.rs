//! System calls as programs make them.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use pollux_kernel::arch;
use pollux_kernel::errno::Errno;

use super::{HANDLERS, Kind, Program, Request, now, users};
use crate::machine;

/// The thread that runs, as its program sees it. All of it is in the machine.
#[derive(Clone, Copy)]
pub struct U;

/// What a system call answers: the value, or a negative error number.
pub type Sys = i64;

/// A call's answer for people.
pub fn errno(result: Sys) -> String {
    if !(-4095..0).contains(&result) {
        return if result < 4096 { result.to_string() } else { format!("{result:#x}") };
    }
    let known = ERRNOS.iter().find(|errno| i64::from(errno.get()) == -result);
    known.map_or(result.to_string(), |errno| errno.name().to_string())
}

const ERRNOS: &[Errno] = &[
    Errno::EPERM,
    Errno::ENOENT,
    Errno::ESRCH,
    Errno::EINTR,
    Errno::EIO,
    Errno::EBADF,
    Errno::ECHILD,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::EFAULT,
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::EINVAL,
    Errno::EMFILE,
    Errno::ENOSPC,
    Errno::EROFS,
    Errno::EPIPE,
    Errno::ENOSYS,
    Errno::ENOTEMPTY,
    Errno::ENOTDIR,
    Errno::EISDIR,
    Errno::ETIMEDOUT,
    Errno::EDEADLK,
];

pub const EINTR: Sys = -4;
pub const EAGAIN: Sys = -11;
pub const ETIMEDOUT: Sys = -110;

const NR_CLONE: u64 = 220;
const NR_SIGACTION: u64 = 134;
const NR_MMAP: u64 = 222;

pub const CLONE_VM: u64 = 0x100;
pub const CLONE_VFORK: u64 = 0x4000;
/// What pthread_create(3) shares.
const THREAD_FLAGS: u64 = 0x3d_0f00;
const SIGCHLD: u64 = 17;

impl U {
    /// Makes a system call.
    pub async fn call(self, number: u64, args: &[u64]) -> Sys {
        self.request(number, args, None).await
    }

    async fn request(self, number: u64, given: &[u64], child: Option<u64>) -> Sys {
        let mut args = [0; 6];
        args[..given.len()].copy_from_slice(given);
        let mut request = Some(Request::Call { number, args, child });
        poll_fn(move |_| {
            let answer = now(|now| match request.take() {
                Some(request) => {
                    now.request = Some(request);
                    None
                }
                None => now.answer.take(),
            });
            answer.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    pub fn tid(self) -> u32 {
        now(|now| now.tid)
    }

    /// A random number below `n`.
    pub fn random(self, n: u64) -> u64 {
        machine::random(n)
    }

    /// Virtual time, ns.
    pub fn now(self) -> u64 {
        arch::now_ns()
    }

    /// In a signal handler: where its siginfo is.
    pub fn siginfo(self) -> u64 {
        now(|now| now.scratch.0 + now.scratch.1)
    }

    /// Room for the arguments of the next calls, aligned to 16. It is used again after some more calls.
    pub fn scratch(self, len: u64) -> u64 {
        let len = len.next_multiple_of(16);
        now(|now| {
            assert!(len <= now.scratch.1 / 2, "{len} bytes of scratch");
            if now.used + len > now.scratch.1 {
                now.used = 0;
            }
            let at = now.scratch.0 + now.used;
            now.used += len;
            at
        })
    }

    /// Puts bytes there.
    pub async fn place(self, bytes: &[u8]) -> u64 {
        let at = self.scratch(bytes.len() as u64);
        self.write_bytes(at, bytes).await;
        at
    }

    /// Puts a string with its end there.
    pub async fn place_str(self, text: &str) -> u64 {
        self.place(&[text.as_bytes(), b"\0"].concat()).await
    }

    /// Puts 64-bit words there.
    pub async fn place_words(self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.place(&bytes).await
    }

    /// New memory, private or shared with children.
    pub async fn map(self, len: u64, shared: bool) -> u64 {
        const ANONYMOUS: u64 = 0x20;
        let flags = ANONYMOUS | if shared { 1 } else { 2 };
        let addr = self.call(NR_MMAP, &[0, len, 3, flags, u64::MAX, 0]).await;
        assert!(addr > 0, "mmap: {}", errno(addr));
        addr as u64
    }

    /// clone(2); what `child` runs is not the parent's code.
    pub async fn clone(self, flags: u64, stack: u64, tids: u64, child: Program) -> Sys {
        let kind = if flags & 0x1_0000 != 0 { Kind::Thread } else { Kind::Process };
        let token = now(|now| now.token);
        let name = users(|users| {
            let name = users.token();
            users.unborn.insert(name, (token, kind, child));
            name
        });
        let answer = self.request(NR_CLONE, &[flags, stack, tids, 0, tids], Some(name)).await;
        if answer < 0 {
            let never_born = users(|users| users.unborn.remove(&name));
            drop(never_born);
        }
        answer
    }

    pub async fn fork(self, child: Program) -> Sys {
        self.clone(SIGCHLD, 0, 0, child).await
    }

    pub async fn vfork(self, child: Program) -> Sys {
        self.clone(SIGCHLD | CLONE_VM | CLONE_VFORK, 0, 0, child).await
    }

    /// A thread with a stack of its own. `tid_word` is set to its id until it has ended; then 0 is stored there, with a
    /// futex wake.
    pub async fn thread(self, tid_word: u64, child: Program) -> Sys {
        const STACK: u64 = 64 << 10;
        let stack = self.map(STACK, false).await;
        self.clone(THREAD_FLAGS & !0x8_0000, stack + STACK, tid_word, child).await
    }

    /// Installs a handler. Also for threads and children, as handlers are kept by the machine.
    pub async fn handle<F: Future<Output = ()> + 'static>(
        self,
        signal: i32,
        flags: u64,
        handler: impl Fn(U, i32) -> F + 'static,
    ) -> Sys {
        let handler = Rc::new(handler);
        let address = users(|users| {
            users.handlers.push(Rc::new(move |u, signal| {
                let handler = handler.clone();
                Box::pin(async move {
                    handler(u, signal).await;
                    0
                })
            }));
            HANDLERS + 16 * (users.handlers.len() as u64 - 1)
        });
        self.set_action(signal, address, flags).await
    }

    /// SIG_DFL (0) or SIG_IGN (1).
    pub async fn set_action(self, signal: i32, handler: u64, flags: u64) -> Sys {
        let action = self.place_words(&[handler, flags, 0, 0]).await;
        self.call(NR_SIGACTION, &[signal as u64, action, 0, 8]).await
    }
}
