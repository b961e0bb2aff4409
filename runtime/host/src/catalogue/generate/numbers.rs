//! Numbers from a seed.

/// SplitMix64: every seed gives another sequence, the same one on every machine.
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// The sequence of one row: its set and its number in it, so that a row does not depend on how many come before it.
    pub fn of(seed: u64, set: &str, row: usize) -> Self {
        // FNV-1a over the name keeps the sets apart.
        let name = set
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut numbers = Self(seed ^ name);
        let first = numbers.next();
        Self(first ^ (row as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Both ends included.
    pub const fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// As often as `percent` says.
    pub const fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
