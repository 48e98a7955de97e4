//! What a session has on request: waits for `mmap_lock`, and the parts of a registration's time. All of it is of
//! registers and updates, the operations that pin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{
    detail::{Detail, READ_WAITS, WRITE_WAITS},
    histogram::SLOTS,
};

use super::Distribution;
use crate::{
    figure::{Figure, Figures},
    sample::Sample,
};

/// `mmap_lock` of the registering process, from the entry of the registration's function to its return. pinscope's own
/// walks are not among it, nor what other threads do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Locks {
    /// Registrations that ended.
    pub registrations: u64,
    /// Those that took the lock for reading.
    pub readers: u64,
    /// Those that took the lock for writing.
    pub writers: u64,
    /// Those that waited more than 1 µs in all.
    pub waited: u64,
    /// Nanoseconds of the registrations.
    pub total_ns: u64,
    /// Nanoseconds of it in waits.
    pub wait_ns: u64,
    /// For reading.
    pub read: LockSide,
    /// For writing.
    pub write: LockSide,
    /// Trylocks that found the lock taken; the kernel then waits, or goes another way.
    pub failed_trylocks: u64,
    /// Waits that a fatal signal ended, among the waits above.
    pub killed_waits: u64,
    /// False where a probe was skipped or the end of a wait was not seen: all of it is then a lower bound.
    pub complete: bool,
}

/// One side of the lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockSide {
    /// Acquisitions, trylocks among them.
    pub acquisitions: u64,
    /// Nanoseconds from `mmap_lock_start_locking` to `mmap_lock_acquire_returned`: every acquisition but those by
    /// trylock, whether the lock was free or not.
    pub wait: Distribution,
}

/// Where the time of register and update went. The parts do not overlap; the probes' own time in a part is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phases {
    /// Registrations whose times are in the sums.
    pub registrations: u64,
    /// Registrations that are not, since an entry or a return of a buffer or a pin was not seen.
    pub left_out: u64,
    /// Nanoseconds from entry to return.
    pub total_ns: u64,
    /// In the pins.
    pub pin: Part,
    /// Of the pins, in the page fault handler (`handle_mm_fault`). A fault that has to wait for I/O calls it twice.
    pub faults: Option<Part>,
    /// Of the pins, in look-ups of a VMA.
    pub lookups: Option<Part>,
    /// Of the pins, in none of the above that are known.
    pub pin_other_ns: u64,
    /// Outside of the pins.
    pub rest_ns: u64,
    /// Of the rest, in the function that charges the pages: since 6.16 `io_account_mem`, called for every buffer; before,
    /// `__io_account_mem`, called only without CAP_IPC_LOCK. What else the kernel accounts is
    /// inlined, and all of it since 7.2.
    pub accounting: Option<Part>,
    /// Of the rest, in nothing that is known.
    pub rest_other_ns: u64,
    /// Pins by path; `None` where it cannot be told.
    pub slow: Option<SlowPins>,
    /// Entries or returns of a part that were not seen: its time is then a lower bound.
    pub missed: u64,
}

/// A part of the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// How often.
    pub calls: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// Pins that looked up a VMA: their pages, or the last of them, were not to be had by the fast path (`gup_fast`, which
/// io_uring takes since 6.10; before, all pins are slow).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlowPins {
    /// How many.
    pub pins: u64,
    /// Nanoseconds of them, what the fast path had done first included.
    pub ns: u64,
    /// The others.
    pub fast_pins: u64,
    /// Nanoseconds of those.
    pub fast_ns: u64,
}

fn count(sample: &Sample, detail: Detail) -> u64 {
    sample.details.get(detail as usize).copied().unwrap_or(0)
}

fn waits(sample: &Sample, first: usize) -> Distribution {
    let slots = sample.details.get(first..).and_then(|slots| slots.first_chunk::<SLOTS>());
    slots.map(Distribution::from_slots).unwrap_or_default()
}

impl Locks {
    /// `None` where the lock is not watched.
    pub fn new(sample: &Sample, figures: &Figures) -> Option<Self> {
        let count = |detail| count(sample, detail);
        let skipped = sample.skipped.iter().any(|(program, runs)| program.starts_with("lock_") && *runs > 0);
        figures.has(Figure::LockWaits).then(|| Self {
            registrations: count(Detail::LockRegistrations),
            readers: count(Detail::LockReaders),
            writers: count(Detail::LockWriters),
            waited: count(Detail::LockWaited),
            total_ns: count(Detail::LockTotalNs),
            wait_ns: count(Detail::LockWaitNs),
            read: LockSide { acquisitions: count(Detail::LockReads), wait: waits(sample, READ_WAITS) },
            write: LockSide { acquisitions: count(Detail::LockWrites), wait: waits(sample, WRITE_WAITS) },
            failed_trylocks: count(Detail::LockFailedTrylocks),
            killed_waits: count(Detail::LockKilledWaits),
            complete: count(Detail::LockUnpaired) == 0 && !skipped,
        })
    }

    /// The waits' share of the registrations' time.
    pub fn share(&self) -> Option<f64> {
        (self.total_ns > 0).then(|| self.wait_ns as f64 / self.total_ns as f64)
    }
}

impl Phases {
    /// `None` where phases are not asked for, or pins are not timed.
    pub fn new(sample: &Sample, figures: &Figures) -> Option<Self> {
        if !figures.has(Figure::Phases) {
            return None;
        }
        let count = |detail| count(sample, detail);
        let part = |calls, ns| Part { calls: count(calls), ns: count(ns) };
        let faults = figures.has(Figure::FaultTime).then(|| part(Detail::PartFaults, Detail::PartFaultNs));
        let lookups = figures.has(Figure::LookupTime).then(|| part(Detail::PartLookups, Detail::PartLookupNs));
        let accounting =
            figures.has(Figure::AccountingTime).then(|| part(Detail::PartAccountings, Detail::PartAccountingNs));
        let ns = |part: &Option<Part>| part.as_ref().map_or(0, |part| part.ns);
        let (pin_other_ns, rest_other_ns) = (count(Detail::PartPinOtherNs), count(Detail::PartRestOtherNs));
        let in_pins = pin_other_ns.saturating_add(ns(&faults)).saturating_add(ns(&lookups));
        let pin = Part { calls: count(Detail::PartPins), ns: in_pins };
        let rest_ns = rest_other_ns.saturating_add(ns(&accounting));
        let slow = part(Detail::PartSlowPins, Detail::PartSlowNs);
        Some(Self {
            registrations: count(Detail::PartRegistrations),
            left_out: count(Detail::PartLeftOut),
            total_ns: pin.ns.saturating_add(rest_ns),
            pin_other_ns,
            rest_ns,
            rest_other_ns,
            slow: figures.has(Figure::SlowPins).then(|| SlowPins {
                pins: slow.calls,
                ns: slow.ns,
                fast_pins: pin.calls.saturating_sub(slow.calls),
                fast_ns: pin.ns.saturating_sub(slow.ns),
            }),
            pin,
            faults,
            lookups,
            accounting,
            missed: count(Detail::PartMissed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Capabilities;

    fn sample(counts: &[(Detail, u64)]) -> Sample {
        let mut sample = Sample::default();
        for (detail, count) in counts {
            sample.details[*detail as usize] = *count;
        }
        sample
    }

    #[test]
    fn the_parts_sum_to_the_whole() {
        let sample = sample(&[
            (Detail::PartRegistrations, 2),
            (Detail::PartRestOtherNs, 280),
            (Detail::PartPins, 4),
            (Detail::PartPinOtherNs, 250),
            (Detail::PartFaultNs, 400),
            (Detail::PartLookupNs, 50),
            (Detail::PartAccountingNs, 20),
            (Detail::PartSlowPins, 3),
            (Detail::PartSlowNs, 650),
        ]);
        let phases = Phases::new(&sample, &Capabilities::all().told()).unwrap();
        assert_eq!((phases.total_ns, phases.pin.ns, phases.rest_ns), (1000, 700, 300));
        assert_eq!(phases.slow, Some(SlowPins { pins: 3, ns: 650, fast_pins: 1, fast_ns: 50 }));
    }

    #[test]
    fn what_is_not_hooked_is_no_part() {
        assert_eq!(
            (
                Locks::new(&sample(&[]), &Capabilities::nothing().told()),
                Phases::new(&sample(&[]), &Capabilities::nothing().told())
            ),
            (None, None)
        );
        let capabilities = Capabilities { lookup_times: false, slow_pins: false, ..Capabilities::all() };
        let phases = Phases::new(&sample(&[(Detail::PartPinOtherNs, 9)]), &capabilities.told()).unwrap();
        assert_eq!((phases.lookups, phases.slow, phases.pin.ns), (None, None, 9));
    }

    #[test]
    fn a_wait_is_on_its_side_and_a_skipped_probe_is_told() {
        let mut sample = sample(&[(Detail::LockTotalNs, 1000), (Detail::LockWaitNs, 250), (Detail::LockReads, 3)]);
        sample.details[READ_WAITS + 5] = 1;
        let locks = Locks::new(&sample, &Capabilities::all().told()).unwrap();
        assert_eq!((locks.read.wait.count(), locks.write.wait.count(), locks.share()), (1, 0, Some(0.25)));
        assert!(locks.complete);
        sample.skipped.insert("lock_wanted".to_owned(), 1);
        assert!(!Locks::new(&sample, &Capabilities::all().told()).unwrap().complete);
    }
}
