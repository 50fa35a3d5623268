//! The whole kernel on a simulated machine in one host thread. A seed decides everything that is left to chance on a real
//! machine, so each run can be repeated exactly. `docs/simulation.md` tells how to use it and how to write a scenario.
//!
//! * [`machine`]: simulated CPUs, each a coroutine that runs the kernel's own loop; the clock; what happens when.
//! * [`user`]: user threads: async functions that make system calls, with memory, signal handlers, fork and exec.
//! * [`disk`]: a disk that is late, reorders, fails, and loses power.
//! * [`mod@heap`]: host addresses that repeat. [`trace`]: what happened, and the hash that must be the same each time. [`rng`]: random numbers.
//! * [`scenario`]: programs that check what they see. [`run`]: a seed is a process; many seeds, replay, reports.

pub mod disk;
pub mod heap;
pub mod machine;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod user;
