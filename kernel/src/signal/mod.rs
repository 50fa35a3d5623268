//! signal

/// How an interrupted system call goes on (signal(7)); decided at signal delivery, never seen by user space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    Sys,
    NoHand,
    NoIntr,
    Block,
}
