//! A distribution by powers of two, for charts.

use crate::aggregate::Distribution;

/// The values from a power of two up to the next; 0 and 1 stand alone. An empty one may be several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Octave {
    /// The least value.
    pub(super) first: u64,
    /// The greatest, inclusive.
    pub(super) last: u64,
    /// How many.
    pub(super) count: u64,
}

impl Octave {
    fn empty(value: u64) -> Self {
        let (first, last) = match value.checked_ilog2() {
            None => (0, 0),
            Some(bit) => (1 << bit, u64::MAX >> (63 - bit)),
        };
        Self { first, last, count: 0 }
    }
}

/// Every octave from that of the least value to that of the greatest. Those that are empty between two are one: a few bytes
/// beside many GiB would take a screen otherwise.
pub(super) fn octaves(distribution: &Distribution) -> Vec<Octave> {
    let mut octaves: Vec<Octave> = Vec::new();
    for (lower, _, count) in distribution.in_use() {
        let own = Octave::empty(lower);
        if let Some(before) = octaves.last().filter(|octave| octave.last.saturating_add(1) < own.first) {
            octaves.push(Octave { first: before.last + 1, last: own.first - 1, count: 0 });
        }
        match octaves.last_mut() {
            Some(octave) if octave.last == own.last => octave.count = octave.count.saturating_add(count),
            _ => octaves.push(Octave { count, ..own }),
        }
    }
    octaves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::fixture::values as distribution_of;

    fn of(values: &[u64]) -> Vec<(u64, u64, u64)> {
        octaves(&distribution_of(values)).into_iter().map(|octave| (octave.first, octave.last, octave.count)).collect()
    }

    #[test]
    fn what_is_empty_between_is_shown_as_one() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[0, 1, 9, 8, 2]), [(0, 0, 1), (1, 1, 1), (2, 3, 1), (4, 7, 0), (8, 15, 2)]);
        assert_eq!(of(&[1, 9]), [(1, 1, 1), (2, 7, 0), (8, 15, 1)]);
        assert_eq!(of(&[0, u64::MAX]), [(0, 0, 1), (1, (1 << 63) - 1, 0), (1 << 63, u64::MAX, 1)]);
        assert_eq!(of(&[u64::MAX, 1 << 63]), [(1 << 63, u64::MAX, 2)]);
    }
}
