//! One value per CPU, each on cache lines of its own.

use super::{MAX_CPUS, cpu_id};

#[repr(align(128))]
struct Padded<T>(T);

/// One `T` per CPU. `get` is the running CPU's; it must not be held over an `.await`
/// (a task may go on elsewhere), which the use of `!Send` cells inside `T` enforces where it matters.
pub struct PerCpu<T>([Padded<T>; MAX_CPUS]);

impl<T> PerCpu<T> {
    pub const fn new(values: [T; MAX_CPUS]) -> Self {
        // `array::map` is not const: move the values one by one.
        let values = core::mem::ManuallyDrop::new(values);
        // SAFETY: both are arrays of MAX_CPUS initialised `T`s; every value is read once and the source is never dropped.
        unsafe {
            let source = &raw const values as *const T;
            let mut out: core::mem::MaybeUninit<[Padded<T>; MAX_CPUS]> = core::mem::MaybeUninit::uninit();
            let mut i = 0;
            while i < MAX_CPUS {
                (out.as_mut_ptr() as *mut Padded<T>).add(i).write(Padded(source.add(i).read()));
                i += 1;
            }
            PerCpu(out.assume_init())
        }
    }

    #[inline]
    pub fn get(&self) -> &T {
        &self.0[cpu_id()].0
    }

    #[inline]
    pub fn on(&self, cpu: usize) -> &T {
        &self.0[cpu].0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}
