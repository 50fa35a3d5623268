//! From registers to typed arguments. Narrow integers take the low bits, as the C prototypes of Linux do.

use crate::mm::UserPtr;

pub trait FromReg {
    fn from_reg(reg: u64) -> Self;
}

macro_rules! from_reg {
    ($($t:ty)*) => { $(impl FromReg for $t { #[inline] fn from_reg(reg: u64) -> Self { reg as $t } })* };
}

from_reg!(u64 usize u32 i32 i64 u16 u8);

impl<T> FromReg for UserPtr<T> {
    #[inline]
    fn from_reg(reg: u64) -> Self {
        UserPtr::new(reg)
    }
}
