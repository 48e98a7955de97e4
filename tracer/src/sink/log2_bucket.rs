//! A distribution by powers of two, for charts.

use crate::aggregate::Distribution;

/// The values from a power of two up to the next; 0 and 1 stand alone. An empty one may be several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log2Bucket {
    /// The least value.
    pub(super) first: u64,
    /// The greatest, inclusive.
    pub(super) last: u64,
    /// How many.
    pub(super) count: u64,
}

impl Log2Bucket {
    fn empty(value: u64) -> Self {
        let (first, last) = match value.checked_ilog2() {
            None => (0, 0),
            Some(bit) => (1 << bit, u64::MAX >> (63 - bit)),
        };
        Self { first, last, count: 0 }
    }
}

/// Every bucket from that of the least value to that of the greatest. Those that are empty between two are one: a few bytes
/// beside many GiB would take a screen otherwise.
pub(super) fn log2_buckets(distribution: &Distribution) -> Vec<Log2Bucket> {
    let mut log2_buckets: Vec<Log2Bucket> = Vec::new();
    for (lower, _, count) in distribution.in_use() {
        let own = Log2Bucket::empty(lower);
        if let Some(before) = log2_buckets.last().filter(|bucket| bucket.last.saturating_add(1) < own.first) {
            log2_buckets.push(Log2Bucket { first: before.last + 1, last: own.first - 1, count: 0 });
        }
        match log2_buckets.last_mut() {
            Some(bucket) if bucket.last == own.last => bucket.count = bucket.count.saturating_add(count),
            _ => log2_buckets.push(Log2Bucket { count, ..own }),
        }
    }
    log2_buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::fixture::values as distribution_of;

    fn of(values: &[u64]) -> Vec<(u64, u64, u64)> {
        log2_buckets(&distribution_of(values))
            .into_iter()
            .map(|bucket| (bucket.first, bucket.last, bucket.count))
            .collect()
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
