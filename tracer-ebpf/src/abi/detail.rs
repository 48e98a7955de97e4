//! What is counted only where a session asks: waits for `mmap_lock`, and the parts of a registration's time. All of it
//! is of registers and updates alone, the operations that pin.

use crate::histogram::SLOTS as HISTOGRAM;

/// Nanoseconds from which a registration's waits for `mmap_lock` count as waiting: an acquisition that found the lock
/// free takes less.
pub const WAITED_NS: u64 = 1000;

/// What is counted; the number is the slot.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Registrations that ended while the lock was watched.
    LockRegistrations,
    /// Nanoseconds that they took.
    LockTotalNs,
    /// Nanoseconds of it that they waited for the lock.
    LockWaitNs,
    /// Those that took it for reading.
    LockReaders,
    /// Those that took it for writing.
    LockWriters,
    /// Those that waited more than [`WAITED_NS`] in all.
    LockWaited,
    /// Acquisitions for reading.
    LockReads,
    /// Acquisitions for writing.
    LockWrites,
    /// Trylocks that found it taken.
    LockFailedTrylocks,
    /// Waits that a fatal signal ended.
    LockKilledWaits,
    /// Waits of which the end was not seen.
    LockUnpaired,
    /// Registrations whose parts are in the sums below.
    PartRegistrations,
    /// Registrations left out of them, since a pin's or a buffer's entry or return was not seen.
    PartLeftOut,
    /// Nanoseconds in the pins, in none of the parts below that are timed. The parts' times do not overlap, so that every sum
    /// of them grows only: a difference read while the counters move could go back.
    PartPinOtherNs,
    /// Nanoseconds outside of the pins, in none of the parts below.
    PartRestOtherNs,
    /// Pins.
    PartPins,
    /// Calls of the page fault handler inside the pins.
    PartFaults,
    /// Nanoseconds in them.
    PartFaultNs,
    /// Look-ups of a VMA that were timed.
    PartLookups,
    /// Nanoseconds in them.
    PartLookupNs,
    /// Calls of the accounting function.
    PartAccountings,
    /// Nanoseconds in them.
    PartAccountingNs,
    /// Pins that took the slow path.
    PartSlowPins,
    /// Nanoseconds of those.
    PartSlowNs,
    /// Entries or returns of a part that were not seen.
    PartMissed,
}

impl Detail {
    /// Slots of the counters, a power of two.
    pub const COUNTERS: usize = 32;
}

/// Where the histogram of waits begins, in nanoseconds: those for reading, then those for writing.
pub const READ_WAITS: usize = Detail::COUNTERS;
/// See [`READ_WAITS`].
pub const WRITE_WAITS: usize = READ_WAITS + HISTOGRAM;

/// Slots of the map `DETAILS`: the counters, then two histograms. Flat, since the kernel refuses nested arrays.
pub const SLOTS: usize = WRITE_WAITS + HISTOGRAM;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_slot_before_the_histograms() {
        assert!((Detail::PartMissed as usize) < Detail::COUNTERS);
        assert_eq!(SLOTS, Detail::COUNTERS + 2 * HISTOGRAM);
    }
}
