//! Log-linear histograms: eight equal buckets to every power of two, so that a bucket is at most one eighth
//! as wide as its lower bound.
//!
//! A value that is read back as its bucket's upper bound is never too low and at most 1/8 too high. Values
//! below 16 have a bucket of their own and are exact. Every `u64` has a bucket: nothing is clipped.

use crate::opaque::opaque;

/// Buckets in use: values up to `u64::MAX`.
pub const BUCKETS: usize = 496;

/// Slots of a histogram as it lies in the map: the buckets, then the sum. A power of two, so that a masked
/// index is inside for the verifier.
pub const SLOTS: usize = 512;

/// The slot that holds the sum of all values.
pub const SUM: usize = SLOTS - 1;

/// Values whose bucket is looked up: what fits into 11 bits.
const SMALL: usize = 1 << 11;

/// The buckets of the values below [`SMALL`]. The BPF instruction set has no count of leading zeros, and any substitute
/// takes several times as many instructions as a load.
static BUCKET_OF: [u16; SMALL] = {
    let mut table = [0; SMALL];
    let mut value = 0;
    while value < SMALL {
        table[value] = if value < 16 {
            value as u16
        } else {
            let bit = value.ilog2();
            // The three bits below the highest one choose among the octave's eight buckets.
            ((bit as u16 - 2) << 3) + ((value >> (bit - 3)) & 7) as u16
        };
        value += 1;
    }
    table
};

/// The bucket of a value, below [`BUCKETS`].
#[inline(always)]
pub fn index(value: u64) -> usize {
    if value < SMALL as u64 {
        return look_up(value);
    }
    // Eight octaves of eight buckets at a time; at least the four highest bits are left, which decide.
    let mut rest = value >> 8;
    if rest < SMALL as u64 {
        return 64 + look_up(opaque(rest));
    }
    let mut passed = 64;
    for _ in 0..6 {
        if rest < SMALL as u64 {
            break;
        }
        rest >>= 8;
        passed += 64;
    }
    passed + look_up(opaque(rest))
}

/// The number of the highest bit of a value, 0 for 0.
#[inline(always)]
pub fn log2_bucket(value: u64) -> u32 {
    OCTAVE_OF[index(value) & (OCTAVE_OF.len() - 1)].into()
}

/// By bucket; beyond the last bucket nothing.
static OCTAVE_OF: [u8; BUCKETS.next_power_of_two()] = {
    let mut table = [0; BUCKETS.next_power_of_two()];
    let mut bucket = 1;
    while bucket < BUCKETS {
        table[bucket] = lower_bound(bucket).ilog2() as u8;
        bucket += 1;
    }
    table
};

/// The mask is for the verifier; what was shifted is hidden from the compiler, which would see that it needs none.
#[inline(always)]
fn look_up(small: u64) -> usize {
    BUCKET_OF[small as usize & (SMALL - 1)].into()
}

/// The smallest value of a bucket. `bucket` must be below [`BUCKETS`].
pub const fn lower_bound(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let bit = (bucket >> 3) + 2;
    (8 + (bucket as u64 & 7)) << (bit - 3)
}

/// The largest value of a bucket. `bucket` must be below [`BUCKETS`].
pub const fn upper_bound(bucket: usize) -> u64 {
    if bucket + 1 >= BUCKETS { u64::MAX } else { lower_bound(bucket + 1) - 1 }
}

/// The histograms kept in the kernel. The first [`Histogram::DURATIONS`] have an entry each in the map `DURATIONS`, the
/// others lie side by side in the one entry of the map `SIZES`: most registrations put something into several of them.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Histogram {
    /// Nanoseconds of successful operations; `+ operation` for the others of its four.
    DurationOk = 0,
    /// Nanoseconds of failed operations; `+ operation` likewise.
    DurationFailed = 4,
    /// Nanoseconds of updates that installed some of their buffers and not all.
    DurationPartial = 8,
    /// Nanoseconds in the pin, all buffers of a registration together (register and update).
    Pin = 9,
    /// VMAs of a registration: the sum over its buffers, where each was walked whole.
    VmasPerRegistration = 10,
    /// VMAs of a buffer that was walked whole.
    VmasPerBuffer = 11,
    /// Buffers that a register or an update handed to the kernel's per-buffer function.
    BuffersPerRegistration = 12,
    /// Bytes of a registration that are registered when it returns, where it did not fail.
    BytesPerRegistration = 13,
    /// Nanoseconds from the making of a ring to each installation on it, of rings whose making was seen.
    RingAge = 14,
    /// Nanoseconds from an installation to the next on the same ring.
    RingGap = 15,
    /// Which installation of its ring each was, from 1.
    RingOrdinal = 16,
}

impl Histogram {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// How many of them are durations of operations.
    pub const DURATIONS: usize = 9;

    /// Where a [`crate::counter::Counter::Plain`] registration is a one, without having been put there.
    pub const ONES: [Self; 3] = [Self::VmasPerRegistration, Self::VmasPerBuffer, Self::BuffersPerRegistration];
}

/// Value of the map `SIZES`, per CPU: the histograms behind those of durations, in the order of their numbers. Flat,
/// since the kernel refuses a map of arrays of arrays.
pub type Sizes = [u64; (Histogram::COUNT - Histogram::DURATIONS) * SLOTS];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact() {
        for value in 0..16 {
            assert_eq!(lower_bound(index(value)), value);
            assert_eq!(upper_bound(index(value)), value);
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 1..BUCKETS {
            assert_eq!(upper_bound(bucket - 1) + 1, lower_bound(bucket), "bucket {bucket}");
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn powers_of_two_begin_a_bucket() {
        for bit in 0..64 {
            let value = 1_u64 << bit;
            assert_eq!(lower_bound(index(value)), value);
            assert_eq!(upper_bound(index(value - 1)), value - 1);
        }
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let bucket = index(value);
            prop_assert!(bucket < BUCKETS);
            prop_assert!(lower_bound(bucket) <= value && value <= upper_bound(bucket));
        }

        #[test]
        fn the_error_is_at_most_an_eighth(value in 1_u64.., shift in 0_u32..64) {
            let value = (value >> shift).max(1);
            let error = upper_bound(index(value)) - value;
            prop_assert!(error <= value / 8, "{value}: {error}");
        }

        #[test]
        fn the_order_is_kept(a: u64, b: u64) {
            if a <= b { prop_assert!(index(a) <= index(b)); }
        }
    }

    #[test]
    fn an_octave_is_the_highest_bit() {
        assert_eq!(log2_bucket(0), 0);
        for bit in 0..64 {
            let least = 1_u64 << bit;
            assert_eq!([log2_bucket(least), log2_bucket(least + (least - 1))], [bit, bit], "{bit}");
        }
    }
}
