/// The open brackets, one bit each, so that 100,000 of them take 12.5 kB.
#[derive(Debug, Clone, Default)]
pub(super) struct Nesting {
    depth: usize,
    /// The innermost 1 to 64 brackets. The lowest bit is the innermost bracket. A 1 is `{`, a 0 is `[`.
    innermost: u64,
    /// The outer brackets, 64 in each word.
    outer: Vec<u64>,
}

impl Nesting {
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns whether the innermost open bracket is `{`.
    pub(super) fn is_object(&self) -> bool {
        self.innermost & 1 == 1
    }

    pub(super) fn open(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.innermost);
            self.innermost = 0;
        }
        self.innermost = self.innermost << 1 | u64::from(is_object);
        self.depth += 1;
    }

    /// Closes the innermost bracket. At least one bracket must be open.
    pub(super) fn close(&mut self) {
        self.depth -= 1;
        self.innermost =
            if self.depth.is_multiple_of(64) { self.outer.pop().unwrap_or(0) } else { self.innermost >> 1 };
    }

    /// Returns the memory in bytes that the open brackets need, without the innermost 64.
    #[cfg(feature = "server")]
    pub(super) fn outer_bytes(&self) -> usize {
        self.outer.len() * size_of::<u64>()
    }

    /// Returns the allocated heap memory in bytes.
    #[cfg(any(feature = "server", test))]
    pub(super) fn heap_bytes(&self) -> usize {
        self.outer.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bits_are_those_of_a_plain_stack(moves in prop::collection::vec(prop::option::weighted(0.6, any::<bool>()), 0..600)) {
            let (mut nesting, mut stack) = (Nesting::default(), Vec::new());
            for bracket in moves {
                match bracket {
                    Some(is_object) => {
                        nesting.open(is_object);
                        stack.push(is_object);
                    }
                    None if stack.pop().is_some() => nesting.close(),
                    None => {}
                }
                prop_assert_eq!(nesting.depth(), stack.len());
                if let Some(innermost) = stack.last() {
                    prop_assert_eq!(nesting.is_object(), *innermost);
                }
            }
        }
    }

    #[test]
    fn a_level_takes_one_bit() {
        let mut nesting = Nesting::default();
        for level in 0..100_000 {
            nesting.open(level % 3 == 0);
        }
        assert!(nesting.heap_bytes() <= 32 * 1024, "{}", nesting.heap_bytes());
    }
}
