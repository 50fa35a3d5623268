//! Types of the seam that both implementations share.

/// General registers of a user thread as they were at the last trap; what `ptrace` calls user_pt_regs, plus TLS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct UserRegs {
    /// x0 … x30.
    pub x: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    /// SPSR_EL1: flags and execution state; only NZCV, SS, DIT, SSBS, BTYPE may be chosen by the user.
    pub pstate: u64,
    /// TPIDR_EL0, the thread pointer (TLS).
    pub tpidr: u64,
}

/// In `UserRegs::pstate`: while `single_step` is on, user mode ends after one instruction.
pub const PSTATE_SS: u64 = 1 << 21;

/// FP/SIMD registers of a user thread: v0–v31, FPSR, FPCR.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FpRegs {
    pub v: [u128; 32],
    pub fpsr: u32,
    pub fpcr: u32,
}

/// Why user mode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// SVC: number in x8, arguments in x0–x5.
    Syscall,
    /// A translation, permission or access-flag fault on user memory. To be resolved by mm or turned into a signal.
    PageFault { addr: u64, access: Access, esr: u64 },
    /// An FP or SIMD instruction while `fp::set_access` forbids them. To be allowed and repeated.
    FpAccess,
    /// Anything else that becomes a signal at once.
    Exception { signal: u8, code: i32, addr: u64, esr: u64 },
    /// A device, timer or inter-processor interrupt; it has already been serviced.
    Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// A user-memory access from the kernel hit an unmapped or protected page at `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserFault {
    pub addr: u64,
    pub access: Access,
}
