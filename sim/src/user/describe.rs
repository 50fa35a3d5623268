//! Words for people.

use std::sync::Arc;

use pollux_kernel::syscalls;

use super::{Await, Kind, USERS};

/// The arguments of a call: as many as it has.
pub fn arguments(number: u64, args: &[u64; 6]) -> String {
    let entry = syscalls::TABLE.iter().find(|entry| u64::from(entry.number) == number);
    let types = entry.map_or(&[][..], |entry| entry.args);
    let shown = types.iter().zip(args).map(|((name, kind), arg)| match *kind {
        "i32" => format!("{name}={}", *arg as i32),
        "i64" => format!("{name}={}", *arg as i64),
        _ if *arg < 4096 => format!("{name}={arg}"),
        _ => format!("{name}={arg:#x}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// What each user thread is doing: the answer to "who waits for what".
pub fn describe_all() -> String {
    USERS.with(|users| match users.try_borrow() {
        Ok(users) => users.describe(),
        Err(_) => "  (unknown: one of them is being changed)\n".into(),
    })
}

impl super::Users {
    /// Takes no lock of the kernel's: this is for runs that went wrong.
    fn describe(&self) -> String {
        let mut out = String::new();
        for (tid, thread) in &self.threads {
            let context = thread.contexts.last();
            if Arc::strong_count(&thread.entity) == 1 {
                continue;
            }
            let doing = match context.map(|context| &context.awaits) {
                Some(Await::Call(_, what)) => format!("in {what}"),
                _ => "in user code".into(),
            };
            let handler = context.is_some_and(|context| context.kind == Kind::Handler);
            let handler = if handler { " of a signal handler" } else { "" };
            let state = if thread.entity.is_runnable() { "runnable" } else { "asleep" };
            out += &format!("  thread {tid} of {}: {state}, {doing}{handler}\n", thread.pid);
        }
        out
    }
}
