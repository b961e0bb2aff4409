//! Choices drawn from bytes, so that a fuzzer steers what is made. When the bytes are used up, every choice is the first.

/// Bytes that are used up as choices are made.
pub struct Entropy<'a>(&'a [u8]);

impl<'a> Entropy<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `count`, which is at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    pub fn number(&mut self) -> i64 {
        i64::from(i16::from_be_bytes([self.byte(), self.byte()]))
    }

    /// Letters that trouble parsers, collations and patterns.
    pub fn text(&mut self) -> String {
        let letters =
            ['a', 'A', 'b', '1', '0', ' ', '\'', '"', '\\', 'ä', '*', '?', '%', '_', ')', '&', ',', '.', ':', 'ß'];
        (0..self.below(6)).map(|_| self.one_of(&letters)).collect()
    }
}
