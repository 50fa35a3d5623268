//! The random-number pool: ChaCha20, reseeded by what devices and programs add (random(7), getrandom(2)).

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::arch;
use crate::sync::SpinLock;

/// The generator, made with the first use or the first `init`.
static POOL: SpinLock<Option<ChaCha20Rng>> = SpinLock::new(None);

/// A new key from the old generator's output, `data`, and the CPU's counter.
fn rekey(pool: &mut Option<ChaCha20Rng>, data: &[u8]) {
    let mut seed = [0u8; 32];
    if let Some(rng) = pool {
        rng.fill_bytes(&mut seed);
    }
    let counter = arch::now_ns().to_le_bytes();
    let hardware = arch::hw_random().unwrap_or(0).to_le_bytes();
    for chunk in data.chunks(16).chain([&counter[..], &hardware[..]]) {
        for (to, from) in seed.iter_mut().zip(chunk) {
            *to ^= from;
        }
        // A permutation of the whole key between the pieces, so that they do not cancel each other.
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut seed);
    }
    *pool = Some(ChaCha20Rng::from_seed(seed));
}

/// Seeds the pool from what firmware gave.
pub fn init() {
    mix(&arch::machine().rng_seed);
}

/// Adds entropy; nothing that was in the pool is lost.
pub fn mix(data: &[u8]) {
    rekey(&mut POOL.lock(), data);
}

/// Fills `bytes` with unpredictable data.
pub fn fill(bytes: &mut [u8]) {
    let mut pool = POOL.lock();
    if pool.is_none() {
        rekey(&mut pool, &[]);
    }
    if let Some(rng) = pool.as_mut() {
        rng.fill_bytes(bytes);
    }
}

/// A random number, for address-space layout and the like.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_does_not_repeat() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        fill(&mut a);
        mix(&[1, 2, 3]);
        fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
