//! A seeded random number generator: SplitMix64.
//!
//! World, tokens and churn depend only on their seeds, so that a failing test can be repeated. The
//! numbers are not cryptographically secure.

/// A seeded stream of random numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A separate stream per purpose: an additional draw for one purpose does not change another
    /// stream.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a of the purpose.
        let label = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        let mut chance = Self(seed ^ label);
        chance.next();
        chance
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// An index into a slice of this length; 0 if it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index below a usize is a usize")
    }

    /// True with a probability of `share` percent.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// True with this probability.
    pub fn hits(&mut self, probability: f64) -> bool {
        // 53 bits: every value is an exact double in [0, 1).
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// A text of letters and digits, like tokens and reference ids.
    pub fn text(&mut self, len: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..len).map(|_| char::from(*self.pick(LETTERS))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_each_purpose_its_own() {
        let draw = |seed, purpose| Chance::new(seed, purpose).text(20);
        assert_eq!(draw(1, "world"), draw(1, "world"));
        assert_ne!(draw(1, "world"), draw(2, "world"));
        assert_ne!(draw(1, "world"), draw(1, "tokens"));
    }

    #[test]
    fn probability_is_kept_at_its_ends() {
        let mut chance = Chance::new(7, "ends");
        assert!((0..1000).all(|_| chance.hits(1.0)));
        assert!((0..1000).all(|_| !chance.hits(0.0)));
    }
}
