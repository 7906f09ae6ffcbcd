//! The prefix cache: which blocks of prompts are known, least recently used ones forgotten first.

use std::collections::{BTreeMap, HashMap};

/// Tokens per block.
pub const BLOCK: u32 = 16;

/// Hash of each full block of a prompt, chained over all blocks before it.
pub fn block_hashes(tokens: impl Iterator<Item = u32>) -> Vec<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut out = Vec::new();
    for (i, token) in tokens.enumerate() {
        for byte in token.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if (i as u32 + 1).is_multiple_of(BLOCK) {
            out.push(hash);
        }
    }
    out
}

/// Known blocks. One of capacity 0 knows nothing and learns nothing.
#[derive(Debug, Default)]
pub struct PrefixCache {
    capacity: usize,
    clock: u64,
    used_at: HashMap<u64, u64>,
    by_age: BTreeMap<u64, u64>,
}

impl PrefixCache {
    /// A cache for `tokens` tokens.
    pub fn new(tokens: u64) -> PrefixCache {
        PrefixCache { capacity: (tokens / u64::from(BLOCK)) as usize, ..PrefixCache::default() }
    }

    pub fn enabled(&self) -> bool {
        self.capacity > 0
    }

    /// Tokens at the start of a prompt that are known. The last token is always computed, since its logits are needed.
    pub fn lookup(&mut self, blocks: &[u64], prompt_tokens: u32) -> u32 {
        let known = blocks.iter().take_while(|b| self.used_at.contains_key(b)).count();
        for block in &blocks[..known] {
            self.touch(*block);
        }
        (known as u32 * BLOCK).min(prompt_tokens.saturating_sub(1) / BLOCK * BLOCK)
    }

    /// Learns the blocks of a prompt.
    pub fn insert(&mut self, blocks: &[u64]) {
        if !self.enabled() {
            return;
        }
        for block in blocks {
            self.touch(*block);
        }
        while self.used_at.len() > self.capacity {
            let (_, oldest) = self.by_age.pop_first().expect("every known block has an age");
            self.used_at.remove(&oldest);
        }
    }

    pub fn clear(&mut self) {
        self.used_at.clear();
        self.by_age.clear();
    }

    fn touch(&mut self, block: u64) {
        self.clock += 1;
        if let Some(old) = self.used_at.insert(block, self.clock) {
            self.by_age.remove(&old);
        }
        self.by_age.insert(self.clock, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_known_by_whole_blocks_and_never_entirely() {
        let a = block_hashes(0..100);
        let b = block_hashes((0..50).chain(1000..1050));
        assert_eq!(a.len(), 6);
        assert_eq!(a[..3], b[..3]);
        assert_ne!(a[3], b[3]);
        let mut cache = PrefixCache::new(1000);
        assert_eq!(cache.lookup(&a, 100), 0);
        cache.insert(&a);
        assert_eq!(cache.lookup(&a, 100), 96);
        assert_eq!(cache.lookup(&b, 100), 48);
        assert_eq!(cache.lookup(&a[..2], 32), 16, "the last token is computed");
        cache.clear();
        assert_eq!(cache.lookup(&a, 100), 0);
    }

    #[test]
    fn the_least_recently_used_blocks_are_forgotten() {
        let mut cache = PrefixCache::new(4 * u64::from(BLOCK));
        let (a, b, c) = (block_hashes(0..32), block_hashes(100..132), block_hashes(200..232));
        cache.insert(&a);
        cache.insert(&b);
        assert_eq!(cache.lookup(&a, 33), 32);
        cache.insert(&c);
        assert_eq!(cache.lookup(&a, 33), 32);
        assert_eq!(cache.lookup(&b, 33), 0);
    }
}
