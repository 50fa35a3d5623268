//! Stands for the machine code of the vDSO: return instructions that nobody runs.

/// See the bare machine's.
pub const CODE_OFFSET: usize = 0x800;

const RET: [u8; 4] = [0xc0, 0x03, 0x5f, 0xd6];
static CODE: [[u8; 4]; 16] = [RET; 16];

pub fn code() -> &'static [u8] {
    CODE.as_flattened()
}

/// Offsets into the code of: rt_sigreturn, clock_gettime, gettimeofday, clock_getres.
pub fn entries() -> [usize; 4] {
    [4, 16, 32, 48]
}
