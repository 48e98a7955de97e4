//! A distribution as the kernel side keeps it: counts by log-linear bucket, and the exact sum.

use std::array;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::histogram::{BUCKETS, SLOTS, SUM, index, lower_bound, upper_bound};

/// Counts by bucket and the exact sum of the values.
///
/// A value below 16 has a bucket of its own; any other lies in a bucket at most 1/8 as wide as its lower
/// bound. Quantiles and the maximum are bounds: never too low, at most 1/8 too high.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written", into = "Written")]
pub struct Distribution {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum: 0 }
    }
}

impl Distribution {
    /// From the slots of a map: the buckets, then the sum.
    pub fn from_slots(slots: &[u64; SLOTS]) -> Self {
        Self { buckets: Box::new(array::from_fn(|bucket| slots[bucket])), sum: slots[SUM] }
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        self.buckets[index(value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Both distributions as one.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            buckets: Box::new(array::from_fn(|bucket| self.buckets[bucket].saturating_add(other.buckets[bucket]))),
            sum: self.sum.saturating_add(other.sum),
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Sum of the values, exact.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean, exact; `None` where there is no value.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// The value that the share `q` (0 to 1) of all values does not exceed: never too low, at most 1/8 too high.
    ///
    /// It is the upper bound of the value's bucket, or what the exact sum leaves where that is less: all values
    /// from this rank on are at least as large, and those below it have at least the lower bounds of their
    /// buckets. A single value, or equal ones that begin a bucket (powers of two), are so told exactly.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let (mut below, mut least) = (0_u64, 0_u128);
        for (lower, upper, in_bucket) in self.in_use() {
            if below.saturating_add(in_bucket) >= rank {
                least += u128::from(lower) * u128::from(rank - 1 - below);
                let left = u128::from(self.sum).checked_sub(least).map(|left| left / u128::from(count - rank + 1));
                // A sample read while the kernel counts can have a sum that does not fit the buckets.
                let bound = left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left >= lower);
                return Some(bound.map_or(upper, |bound| bound.min(upper)));
            }
            below += in_bucket;
            least += u128::from(lower) * u128::from(in_bucket);
        }
        None
    }

    /// No value exceeds it: at most 1/8 above the greatest.
    pub fn max_bound(&self) -> Option<u64> {
        self.quantile(1.0)
    }

    /// Values of at most `bound`; exact where `bound` ends a bucket, else those of the whole buckets below it.
    pub fn count_at_most(&self, bound: u64) -> u64 {
        let last = index(bound);
        let whole = if upper_bound(last) == bound { last + 1 } else { last };
        self.buckets[..whole].iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The share of the values that are exactly `value`, which must be below 16.
    pub fn share_of(&self, value: u64) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.buckets[index(value)] as f64 / count as f64)
    }

    /// The buckets in use: smallest value, largest value, count.
    pub fn in_use(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        buckets.map(|(bucket, count)| (lower_bound(bucket), upper_bound(bucket), *count))
    }
}

/// A distribution; null for what an empty one has not. `p50` to `max` are never too low, at most 1/8 too high, and exact below
/// 16.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Distribution")]
struct Written {
    /// Values.
    count: u64,
    /// Their sum, exact.
    sum: u64,
    /// Their mean, exact.
    mean: Option<f64>,
    /// Half of the values are at most so large.
    p50: Option<u64>,
    /// Nine in ten are.
    p90: Option<u64>,
    /// 99 in 100 are.
    p99: Option<u64>,
    /// All are.
    max: Option<u64>,
    /// The buckets in use.
    buckets: Vec<Bucket>,
}

/// Values from one bound to the other, both inclusive.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Bucket {
    /// The least value.
    lower: u64,
    /// The greatest value.
    upper: u64,
    /// Values.
    count: u64,
}

impl From<Distribution> for Written {
    fn from(all: Distribution) -> Self {
        let buckets = all.in_use().map(|(lower, upper, count)| Bucket { lower, upper, count }).collect();
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| all.quantile(share));
        Self { count: all.count(), sum: all.sum(), mean: all.mean(), p50, p90, p99, max: all.max_bound(), buckets }
    }
}

/// All else follows from the buckets and the sum.
impl From<Written> for Distribution {
    fn from(Written { sum, buckets, .. }: Written) -> Self {
        let mut all = Self { sum, ..Self::default() };
        for Bucket { lower, count, .. } in buckets {
            all.buckets[index(lower)] = count;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::default();
        for value in values {
            distribution.add(*value);
        }
        distribution
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec((any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift), 0..50)
    }

    #[test]
    fn an_empty_distribution_has_no_quantile() {
        let empty = Distribution::default();
        assert_eq!((empty.quantile(0.5), empty.max_bound(), empty.mean(), empty.share_of(1)), (None, None, None, None));
        assert_eq!((empty.count(), empty.sum()), (0, 0));
    }

    #[test]
    fn small_values_are_exact() {
        let small = of(&[1, 1, 1, 2, 15]);
        assert_eq!((small.quantile(0.5), small.quantile(0.8), small.max_bound()), (Some(1), Some(2), Some(15)));
        assert_eq!((small.share_of(1), small.sum(), small.mean()), (Some(0.6), 20, Some(4.0)));
        assert_eq!((small.count_at_most(1), small.count_at_most(14), small.count_at_most(15)), (3, 4, 5));
    }

    #[test]
    fn equal_values_that_begin_a_bucket_are_exact() {
        let equal = of(&[1 << 20; 10]);
        assert_eq!((equal.quantile(0.5), equal.max_bound()), (Some(1 << 20), Some(1 << 20)));
        assert_eq!(of(&[71]).max_bound(), Some(71));
        assert_eq!(of(&[1, 1, 70]).max_bound(), Some(70));
    }

    #[test]
    fn a_sum_that_does_not_fit_the_buckets_gives_no_bound() {
        let mut slots = [0; SLOTS];
        slots[index(100)] = 2;
        assert_eq!(Distribution::from_slots(&slots).max_bound(), Some(upper_bound(index(100))));
        slots[SUM] = u64::MAX;
        assert_eq!(Distribution::from_slots(&slots).max_bound(), Some(upper_bound(index(100))));
    }

    #[test]
    fn slots_are_buckets_and_the_sum() {
        let mut slots = [0; SLOTS];
        slots[3] = 2;
        slots[SUM] = 6;
        assert_eq!(Distribution::from_slots(&slots), of(&[3, 3]));
    }

    #[test]
    fn json_has_both_bounds() {
        let json = serde_json::to_value(of(&[1, 17])).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "count": 2, "sum": 18, "mean": 9.0, "p50": 1, "p90": 17, "p99": 17, "max": 17,
                "buckets": [{"lower": 1, "upper": 1, "count": 1}, {"lower": 16, "upper": 17, "count": 1}],
            })
        );
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutes(a in values(), b in values(), c in values()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
            prop_assert_eq!(a.merge(&b), b.merge(&a));
            prop_assert_eq!(a.merge(&Distribution::default()), a);
        }

        #[test]
        fn merging_is_counting_together(a in values(), b in values()) {
            prop_assert_eq!(of(&a).merge(&of(&b)), of(&[a, b].concat()));
        }

        #[test]
        fn a_quantile_is_at_most_an_eighth_too_high(mut values in values(), q in 0.0..=1.0_f64) {
            prop_assume!(!values.is_empty() && values.iter().try_fold(0_u64, |sum, value| sum.checked_add(*value)).is_some());
            let told = of(&values).quantile(q).unwrap();
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            prop_assert!(told >= exact && told - exact <= exact / 8, "{told} for {exact}");
        }

        #[test]
        fn at_most_is_exact_where_a_bucket_ends(values in values(), bucket in 0..BUCKETS) {
            let bound = upper_bound(bucket);
            let exact = values.iter().filter(|value| **value <= bound).count() as u64;
            prop_assert_eq!(of(&values).count_at_most(bound), exact);
        }
    }
}
