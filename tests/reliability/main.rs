//! What results survive: kills at any instant and at every write, power failures, full and failing disks, clocks that jump,
//! many runs at once. Each test drives the binary as a user does; `shim.c` stands between it and the C library where a
//! failure has to be made.
//!
//! Three numbers scale the tests up from what a check of every change can afford, see `docs/reliability.md`:
//! `RELIABILITY_KILLS`, `RELIABILITY_POINTS`, `RELIABILITY_UNITS`, and `RELIABILITY_SEED` chooses another course.

mod chain;
mod clock;
mod crowd;
mod damage;
mod disk;
mod endurance;
mod full_disk;
mod power;
mod shim;
mod tree;

/// A number from the environment, to scale a test with.
fn scale(name: &str, default: u64) -> u64 {
    let name = format!("RELIABILITY_{name}");
    match std::env::var(&name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From the environment's seed, another course for each `salt`.
    fn new(salt: u64) -> Dice {
        Dice(scale("SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Tells figures of a long course, around the test harness, which would swallow them.
fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
