//! How much of each kind of figure was measured. What the kernel skipped of a hook's runs is missing from every sum above
//! it, so those are lower bounds, and say so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{counter::Counter, operation::Operation};

use super::books::OperationBooks;
use crate::{
    decode::Capabilities,
    figure::{Figure, FigureSet, Figures},
    human,
    sample::{Sample, skipped},
};

/// What was measured of something, and what was not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Measured.
    pub measured: u64,
    /// Not measured. Skipped runs of a hook are of any task, so that a session with filters may have missed less.
    pub missed: u64,
    /// The share, 0 to 1; `None` before the first.
    pub coverage: Option<f64>,
}

impl Measured {
    fn new(measured: u64, missed: u64) -> Self {
        let all = measured.saturating_add(missed);
        Self { measured, missed, coverage: (all > 0).then(|| measured as f64 / all as f64) }
    }
}

/// By kind of figure; `None` where it is not measured at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Calls: counts, results, durations.
    pub calls: Option<Measured>,
    /// Buffers and bytes.
    pub buffers: Option<Measured>,
    /// Pins: their time and faults.
    pub pins: Option<Measured>,
    /// Walks to the end: VMAs, files, backings.
    pub walks: Option<Measured>,
    /// The calls' own times: the wait for the ring's lock.
    pub call_times: Option<Measured>,
    /// Skipped runs of the program that counts the calls: as many calls at most were not even counted.
    pub uncounted: u64,
    /// Skipped runs of the program that notes new rings; `None` where none are followed.
    pub unnoted_rings: Option<u64>,
    /// Skipped runs of the programs at the lock's tracepoints; `None` where they are not asked for.
    pub unseen_locks: Option<u64>,
}

/// What is summed up over calls.
const CALLS: FigureSet = FigureSet::of(&[
    Figure::Results,
    Figure::RegisterDuration,
    Figure::UpdateDuration,
    Figure::CloneDuration,
    Figure::UnregisterDuration,
]);
/// What is summed up over buffers.
const BUFFERS: FigureSet =
    FigureSet::of(&[Figure::Buffers, Figure::Bytes, Figure::Vmas, Figure::Backings, Figure::Files]);
/// What is summed up over pins.
const PINS: FigureSet = FigureSet::of(&[Figure::PinTime, Figure::PinFaults, Figure::Lookups]);
/// What is summed up over walks.
const WALKS: FigureSet = FigureSet::of(&[Figure::Vmas, Figure::Backings, Figure::Files]);

impl Coverage {
    pub(super) fn new(
        sample: &Sample,
        capabilities: &Capabilities,
        told: &Figures,
        operations: &[OperationBooks],
    ) -> Self {
        let count = |counter: Counter| sample.counters[counter as usize];
        let calls = calls(sample, operations);
        let stray = count(Counter::StrayBuffers);
        let unentered = count(Counter::BufferMissedEntries).max(skipped(sample, &["buffer_enter", "pin_enter_buffer"]));
        // A call without an entry had a buffer at least. Those that were seen without their call may be its own, but for those of a pin
        // that stands for its buffer.
        let of_missed = missed_installations(operations);
        let of_missed = if capabilities.lean { of_missed } else { of_missed.saturating_sub(stray) };
        let buffers = sum([stray, unentered, of_missed]);
        let pins = sum([count(Counter::PinMissedReturns), count(Counter::PinMissedEntries), buffers]);
        // What a buffer's walk saw is counted when the buffer returns.
        let unwalked =
            [Counter::WalksBusy, Counter::WalksCut, Counter::WalksNone, Counter::BufferMissedReturns].map(count);
        let walked = sum([Counter::WalksComplete, Counter::WalksHole].map(count));
        let measured = |figure: Figure, of: u64, missed: u64| told.has(figure).then(|| Measured::new(of, missed));
        let timed = Operation::ALL.iter().map(|operation| sample.counters[Counter::TimedCalls.of(*operation)]);
        let untimed = calls.map_or(0, |calls| calls.missed).saturating_add(count(Counter::UntimedCalls));
        Self {
            calls,
            call_times: measured(Figure::CallTime, timed.fold(0, u64::saturating_add), untimed),
            buffers: measured(Figure::Buffers, count(Counter::BufferEntries), buffers),
            pins: measured(Figure::PinTime, count(Counter::PinReturns), pins),
            uncounted: uncounted(sample),
            unnoted_rings: told.has(Figure::Rings).then(|| skipped(sample, &["ring_created"])),
            unseen_locks: told.has(Figure::LockWaits).then(|| skipped(sample, &["lock_"])),
            walks: measured(Figure::Vmas, walked, sum(unwalked).saturating_add(buffers)),
        }
    }

    /// The kinds by name.
    pub fn by_figure(&self) -> impl Iterator<Item = (&'static str, Measured)> {
        let all = [
            ("calls", self.calls),
            ("buffers", self.buffers),
            ("pins", self.pins),
            ("walks", self.walks),
            ("call_times", self.call_times),
        ];
        all.into_iter().filter_map(|(name, measured)| Some((name, measured?)))
    }

    /// Says of the figures whose sums lack something how much.
    pub fn bound(&self, figures: &mut Figures) {
        let measured = [
            (self.calls, CALLS, "calls were not measured"),
            (self.buffers, BUFFERS, "buffers were not seen"),
            (self.pins, PINS, "pins were not seen from end to end"),
            (self.walks, WALKS, "buffers were not walked to the end"),
            (self.call_times, FigureSet::of(&[Figure::CallTime]), "calls were not timed"),
        ];
        for (measured, of, what) in measured {
            if let Some(Measured { measured, missed, .. }) = measured.filter(|of| of.missed > 0) {
                let all = human::count(measured.saturating_add(missed));
                figures.bound(of, format!("lower bounds, {} of {all} {what}", human::count(missed)));
            }
        }
        if let Some(skipped) = self.unnoted_rings.filter(|runs| *runs > 0) {
            let skipped = human::count(skipped);
            let reason = format!("not known of all rings, the making of up to {skipped} was not seen");
            figures.bound(FigureSet::of(&[Figure::Rings]), reason);
        }
        if let Some(skipped) = self.unseen_locks.filter(|runs| *runs > 0) {
            let reason = format!("lower bounds, up to {} of their ends were not seen", human::count(skipped));
            figures.bound(FigureSet::of(&[Figure::LockWaits]), reason);
        }
    }

    /// Whether every hook that counts by itself, and has no other to be held against, ran whenever it should.
    pub(super) fn is_whole(&self) -> bool {
        [self.unnoted_rings, self.unseen_locks].into_iter().flatten().all(|skipped| skipped == 0)
    }
}

/// Of the operations whose entry is hooked. A run of the ledger's program that was skipped is a call that nothing counts.
fn calls(sample: &Sample, operations: &[OperationBooks]) -> Option<Measured> {
    // What is missing is added up by itself: a difference of sums could get smaller where one of them is at its end.
    let told = operations
        .iter()
        .filter_map(|books| books.measured().map(|(measured, all)| (all - measured, all)))
        .reduce(|a, b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
    let uncounted = uncounted(sample);
    let counted = operations.iter().any(|books| books.ledger.is_some());
    if told.is_none() && !counted {
        return None;
    }
    let (missed, all) = told.unwrap_or((0, 0));
    // Lost state shows at the tracepoint as a missed entry or, when it failed, as an early refusal, by whichever operation: so
    // it is held against the sum.
    let missed = missed.max(all.min(sample.counters[Counter::LostFrames as usize]));
    Some(Measured::new(all.saturating_sub(missed), missed.saturating_add(uncounted)))
}

/// Calls of which the ledger's program was skipped, those of other operations among them.
pub(super) fn uncounted(sample: &Sample) -> u64 {
    skipped::uncounted(&sample.skipped)
}

/// Calls that may have had buffers, and whose entry was not seen.
fn missed_installations(operations: &[OperationBooks]) -> u64 {
    let installing = [Operation::Register, Operation::Update];
    let of = operations.iter().filter(|books| installing.contains(&books.operation));
    of.filter_map(OperationBooks::measured).fold(0, |sum, (measured, all)| sum.saturating_add(all - measured))
}

/// Runs that the kernel skipped of the programs whose names begin so.
pub(super) fn skipped(sample: &Sample, programs: &[&str]) -> u64 {
    skipped::of(&sample.skipped, programs)
}

fn sum<const N: usize>(counts: [u64; N]) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}
