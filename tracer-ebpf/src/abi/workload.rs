//! What is counted by cgroup, from which the service makes its figures by workload.

use crate::policy::Policy;

/// Names of a cgroup's path that are noted, from its own upwards.
pub const LEVELS: usize = 8;

/// Bytes of a name, its final zero among them.
pub const NAME: usize = 96;

/// Key of the map `WORKLOADS` under which calls are counted that find no room for their cgroup, or whose cgroup cannot be
/// read. No cgroup has this id. User space puts the entry there before the programs run.
pub const REST: u64 = 0;

/// Entries of the map `OWNERS`. Only who manages the machine makes cgroups that high, so they are few.
pub const OWNERS: usize = 256;

/// In a key of the map `CGROUPS`: the path is that of an entry of `OWNERS`. No cgroup has an id that high.
pub const OWNER: u64 = 1 << 63;

/// Bounds of the durations: 2^k - 1 nanoseconds, for k from 10 (1 µs) to 31 (2.1 s) in steps of three.
pub const DURATION_BOUNDS: [u64; 8] = {
    let mut bounds = [0; 8];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = (1 << (10 + 3 * i)) - 1;
        i += 1;
    }
    bounds
};

/// Bounds of the VMAs of a registration.
pub const VMA_BOUNDS: [u64; 5] = [1, 3, 7, 63, 1023];

/// What is counted of a cgroup's registers, updates and clones. A number is the slot's, or the first of several.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Accepted, one buffer in one VMA, before the ring's first request; the next slot has those after it. They are in no
    /// other slot but those of bytes, times and faults until [`WorkloadTotals::spread`] puts them there.
    Plain = 0,
    /// Calls that ended well.
    Succeeded = 2,
    /// Calls that failed.
    Failed = 3,
    /// Buffers that reached the per-buffer function.
    Buffers = 4,
    /// Bytes registered.
    Bytes = 5,
    /// Nanoseconds in the pins of calls of which no part was missed.
    PinNanoseconds = 6,
    /// `task_struct.min_flt` over the pins.
    MinorFaults = 7,
    /// `task_struct.maj_flt` over the pins.
    MajorFaults = 8,
    /// Installations before the ring's first request.
    BeforeRequests = 9,
    /// Installations after it.
    AfterRequests = 10,
    /// Buffers that a policy would refuse; `+ policy` for the others of [`REFUSED`].
    Refused = 11,
    /// Registrations by [`VMA_BOUNDS`], those above the last bound in the sixth, where each buffer was walked whole.
    Vmas = 15,
    /// VMAs of those.
    VmasSum = 21,
    /// Calls by [`DURATION_BOUNDS`], those above the last bound in the ninth.
    Durations = 22,
    /// Nanoseconds of those.
    DurationSum = 31,
    /// Updates that installed some of their buffers and not all.
    Partial = 32,
    /// Bytes asked for and not registered, as in [`crate::counter::Counter::RefusedBytes`].
    RefusedBytes = 33,
    /// Installations after the ring's first request that may have replaced buffers
    /// ([`crate::installation::Installation::may_switch`]).
    Switches = 34,
}

/// The policies by which a workload's accepted buffers are counted. The last one is left out: it refuses what the one before
/// it refuses, and no kernel but its own accepts a buffer that those two answer otherwise.
pub const REFUSED: [Policy; 4] = [Policy::Before65, Policy::SingleSource, Policy::AsProposed, Policy::Since65];

/// Slots of a [`WorkloadTotals`]; a power of two, so that a masked index is inside.
pub const SLOTS: usize = 64;

/// What is counted of one cgroup, by [`Slot`]: value of the map `WORKLOADS`, by the kernel's id of the cgroup.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadTotals(pub [u64; SLOTS]);

impl Default for WorkloadTotals {
    fn default() -> Self {
        Self::ZERO
    }
}

impl WorkloadTotals {
    /// Nothing counted.
    pub const ZERO: Self = Self([0; SLOTS]);

    /// One slot.
    pub const fn get(&self, slot: Slot) -> u64 {
        self.0[slot as usize]
    }

    /// Accepted buffers that a policy of [`REFUSED`] would refuse.
    pub const fn refused(&self, policy: Policy) -> u64 {
        self.0[Slot::Refused as usize + policy as usize]
    }

    /// Registrations by [`VMA_BOUNDS`], then those above.
    pub fn vmas(&self) -> &[u64] {
        &self.0[Slot::Vmas as usize..Slot::VmasSum as usize]
    }

    /// Calls by [`DURATION_BOUNDS`], then those above.
    pub fn durations(&self) -> &[u64] {
        &self.0[Slot::Durations as usize..Slot::DurationSum as usize]
    }

    /// Both together. Saturating.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|slot| self.0[slot].saturating_add(other.0[slot])))
    }

    /// What is more than `other`, never less than 0.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|slot| self.0[slot].saturating_sub(other.0[slot])))
    }

    /// With what the kernel side counted together in the slots that it stands for.
    #[must_use]
    pub fn spread(mut self) -> Self {
        let [fresh, used] = [self.0[0], self.0[1]];
        self.0[0] = 0;
        self.0[1] = 0;
        let plain = fresh.saturating_add(used);
        let stands_for = [
            (Slot::Succeeded, plain),
            (Slot::Buffers, plain),
            (Slot::Vmas, plain),
            (Slot::VmasSum, plain),
            (Slot::BeforeRequests, fresh),
            (Slot::AfterRequests, used),
        ];
        for (slot, count) in stands_for {
            self.0[slot as usize] = self.0[slot as usize].saturating_add(count);
        }
        self
    }
}

/// Value of the map `CGROUPS`, by the kernel's id of the cgroup: its path.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// 0 until the names are noted, then one more than there are.
    pub noted: u32,
    /// 1 where the path has more names than [`LEVELS`].
    pub cut: u32,
    /// Names of its path, its own first; each ends at its first zero, or was too long where it has none before the last
    /// byte.
    pub names: [[u8; NAME]; LEVELS],
}

impl CgroupPath {
    /// Nothing noted.
    // SAFETY: integers only, for which all zeros is a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// Octaves of histograms.
const OCTAVES: usize = 64;

/// The bound of [`DURATION_BOUNDS`] that a value falls under, by the octave of its bucket (see [`crate::histogram`]).
static DURATION_SLOTS: [u8; OCTAVES] = {
    let mut slots = [0; OCTAVES];
    let mut octave = 0;
    while octave < OCTAVES {
        // The first octave of buckets holds all values below 8.
        let bits = octave + 2;
        slots[octave] = if bits < 10 {
            0
        } else if bits >= 31 {
            8
        } else {
            ((bits - 7) / 3) as u8
        };
        octave += 1;
    }
    slots
};

/// Which of the duration's slots a value is counted in, by its bucket.
#[inline(always)]
pub fn duration_slot(bucket: usize) -> usize {
    Slot::Durations as usize + usize::from(DURATION_SLOTS[(bucket >> 3) & (OCTAVES - 1)])
}

/// Which of the VMAs' slots a registration is counted in.
#[inline(always)]
pub fn vma_slot(vmas: u64) -> usize {
    let mut slot = Slot::Vmas as usize;
    for bound in VMA_BOUNDS {
        if vmas > bound {
            slot += 1;
        }
    }
    slot
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::index;

    #[test]
    fn the_bounds_are_exact() {
        assert_eq!(DURATION_BOUNDS, [1023, 8191, 65535, 524_287, 4_194_303, 33_554_431, 268_435_455, 2_147_483_647]);
        for (slot, bound) in DURATION_BOUNDS.into_iter().enumerate() {
            assert_eq!(duration_slot(index(bound)), Slot::Durations as usize + slot, "{bound}");
            assert_eq!(duration_slot(index(bound + 1)), Slot::Durations as usize + slot + 1, "{bound} + 1");
        }
        assert_eq!(duration_slot(index(0)), Slot::Durations as usize);
        assert_eq!(duration_slot(index(u64::MAX)), Slot::DurationSum as usize - 1);
        for (slot, bound) in VMA_BOUNDS.into_iter().enumerate() {
            assert_eq!(vma_slot(bound), Slot::Vmas as usize + slot);
            assert_eq!(vma_slot(bound + 1), Slot::Vmas as usize + slot + 1);
        }
        assert_eq!(vma_slot(u64::MAX), Slot::VmasSum as usize - 1);
    }

    #[test]
    fn slots_follow_each_other() {
        assert_eq!(Slot::Refused as usize + REFUSED.len(), Slot::Vmas as usize);
        assert_eq!(WorkloadTotals::default().vmas().len(), VMA_BOUNDS.len() + 1);
        assert_eq!(WorkloadTotals::default().durations().len(), DURATION_BOUNDS.len() + 1);
        assert!((Slot::Switches as usize) < SLOTS && SLOTS.is_power_of_two());
    }

    #[test]
    fn what_was_counted_together_is_spread() {
        let mut totals = WorkloadTotals::default();
        (totals.0[0], totals.0[1], totals.0[Slot::Buffers as usize]) = (3, 2, 7);
        let spread = totals.spread();
        assert_eq!((spread.get(Slot::Succeeded), spread.get(Slot::Buffers)), (5, 12));
        assert_eq!((spread.vmas()[0], spread.get(Slot::VmasSum)), (5, 5));
        assert_eq!((spread.get(Slot::BeforeRequests), spread.get(Slot::AfterRequests)), (3, 2));
        assert_eq!(spread.spread(), spread);
    }

    proptest! {
        #[test]
        fn a_duration_is_under_its_bound(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let expected = DURATION_BOUNDS.iter().filter(|bound| value > **bound).count();
            prop_assert_eq!(duration_slot(index(value)), Slot::Durations as usize + expected);
        }
    }
}
