//! Whether the counts add up: against each other, and against the kernel's own tracepoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{
    counter::{Counter, ERRNO_SLOTS, PARTIAL_RESULTS},
    operation::Operation,
};

use super::coverage::{Coverage, skipped, uncounted};
use crate::{
    decode::Capabilities,
    figure::{Figure, Figures},
    sample::Sample,
};

const BUFFERS: [Counter; 4] =
    [Counter::BufferEntries, Counter::BufferReturns, Counter::BufferMissedReturns, Counter::BufferMissedEntries];
const PINS: [Counter; 4] =
    [Counter::PinEntries, Counter::PinReturns, Counter::PinMissedReturns, Counter::PinMissedEntries];

/// The books of a session: always from attaching on, since an interval has registrations that began before it.
///
/// A sample is read while the counters move, CPU by CPU, so that a live one may be off by what is under way;
/// when nothing is, it must balance to the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Books {
    /// By operation.
    pub operations: Vec<OperationBooks>,
    /// Of the per-buffer function.
    pub buffers: Option<PartBooks>,
    /// Of the pin.
    pub pins: Option<PartBooks>,
    /// Registrations under way: the entries that have not ended, less those that never will (another of the task came
    /// first).
    pub in_flight: Option<i64>,
    /// Calls that were under way when the session began, and ended in it: in no other figure. `None` without the tracepoint or
    /// an entry's hook.
    pub begun_before: Option<u64>,
    /// What was measured of what the tracepoint saw, 0 to 1, over the operations whose entry is hooked;
    /// `None` before the first.
    pub coverage: Option<f64>,
    /// How much of each kind of figure was measured.
    pub figures: Coverage,
    /// Whether everything adds up.
    pub balanced: bool,
}

/// The books of one operation. `entries = closed + in flight`, `closed = ledger - refused early - missed
/// entries`, `returns + missed returns = closed`, `counted = ledger`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationBooks {
    /// Which.
    pub operation: Operation,
    /// Results counted; `None` without the tracepoint, which counts them.
    pub counted: Option<u64>,
    /// The entry hook ran; `None` where there is none.
    pub entries: Option<u64>,
    /// The return hook ran; `None` where there is none.
    pub returns: Option<u64>,
    /// The tracepoint fired; `None` where it is not attached.
    pub ledger: Option<u64>,
    /// The tracepoint reported an error, and no entry had been seen: refused before the function. Where the kernel
    /// skipped runs of the entry's program, some of them may be missed entries; `coverage` takes them for such.
    pub refused_early: Option<u64>,
    /// The tracepoint reported success and no entry had been seen.
    pub missed_entries: Option<u64>,
    /// The tracepoint came before the return had been seen.
    pub missed_returns: Option<u64>,
    /// Runs of the entry's program that the kernel skipped, of any task.
    pub skipped_entries: u64,
    /// Entries that have not ended; negative where more ended than began. Those that never will are among them, unless the kernel
    /// skipped runs of the ledger's program and calls under way were seen by their tasks.
    pub in_flight: Option<i64>,
    /// What was measured of what the tracepoint saw, 0 to 1.
    pub coverage: Option<f64>,
    /// By how many the counts do not add up; 0 is balanced. `None` without the tracepoint.
    pub unexplained: Option<u64>,
}

impl OperationBooks {
    /// Any hook counts its calls: without one their number is unknown, not 0.
    pub const fn is_counted(&self) -> bool {
        self.ledger.is_some() || self.entries.is_some()
    }
}

/// The books of a part of a registration. `entries = returns + missed returns + in flight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartBooks {
    /// It was entered.
    pub entries: u64,
    /// It returned.
    pub returns: u64,
    /// It ended without its return having been seen.
    pub missed_returns: u64,
    /// It returned without its entry having been seen; in none of the others.
    pub missed_entries: u64,
    /// Entered and not ended; negative where more ended than began.
    pub in_flight: i64,
}

impl Books {
    pub(super) fn new(sample: &Sample, capabilities: &Capabilities, told: &Figures) -> Self {
        let operations: Vec<_> = Operation::ALL
            .iter()
            .map(|operation| OperationBooks::new(sample, capabilities, told, *operation))
            .collect();
        let buffers =
            (told.has(Figure::Buffers) && capabilities.buffer_returns).then(|| PartBooks::new(sample, BUFFERS));
        let pins = told.has(Figure::PinTime).then(|| PartBooks::new(sample, PINS));
        let balanced = operations.iter().all(|books| books.unexplained.is_none_or(|off| off == 0))
            && [&buffers, &pins].into_iter().flatten().all(|books| books.in_flight >= 0);
        let in_flight = in_flight(&operations, sample);
        let balanced = balanced && in_flight.is_none_or(|open| open >= 0);
        let figures = Coverage::new(sample, capabilities, told, &operations);
        let balanced = balanced && figures.is_whole();
        let coverage = figures.calls.and_then(|calls| calls.coverage);
        let noted = capabilities.ledger && (capabilities.calls || capabilities.entries.contains(&true));
        let begun_before = noted.then(|| sample.counters[Counter::EarlyCalls as usize]);
        Self { operations, buffers, pins, in_flight, begun_before, coverage, figures, balanced }
    }

    /// Entries of buffers and pins that were not seen.
    pub fn missed_parts(&self) -> u64 {
        let parts = [&self.buffers, &self.pins].into_iter().flatten().map(|books| books.missed_entries);
        parts.fold(0, u64::saturating_add)
    }

    /// Returns that were not seen, of registrations, buffers and pins.
    pub fn missed_returns(&self) -> u64 {
        let operations = self.operations.iter().filter_map(|books| books.missed_returns);
        let parts = [&self.buffers, &self.pins].into_iter().flatten().map(|books| books.missed_returns);
        operations.chain(parts).fold(0, u64::saturating_add)
    }
}

impl OperationBooks {
    fn new(sample: &Sample, capabilities: &Capabilities, told: &Figures, operation: Operation) -> Self {
        let number = operation as usize;
        let count = |counter: Counter| sample.counters[counter.of(operation)];
        let entered = capabilities.entries[number];
        let both = capabilities.ledger && entered;
        let mut books = Self {
            operation,
            counted: capabilities.ledger.then(|| counted(sample, operation)),
            entries: entered.then(|| count(Counter::Entries)),
            returns: capabilities.returns[number].then(|| count(Counter::Returns)),
            ledger: capabilities.ledger.then(|| count(Counter::Ledger)),
            refused_early: both.then(|| count(Counter::RefusedEarly)),
            missed_entries: both.then(|| count(Counter::MissedEntries)),
            missed_returns: (both && capabilities.returns[number]).then(|| count(Counter::MissedReturns)),
            skipped_entries: 0,
            in_flight: None,
            coverage: None,
            unexplained: None,
        };
        let unended = books.closed().zip(books.entries).map(|(closed, entries)| narrow(i128::from(entries) - closed));
        let open = sample.open.map(|open| narrow(open[number].into()));
        let told_open = unended.filter(|_| told.has(Figure::UnderWay));
        books.in_flight = told_open.map(|unended| open.map_or(unended, |open| unended.min(open)));
        books.skipped_entries = skipped(sample, &[&format!("{}_enter", operation.name())]);
        books.coverage = books.measured().map(|(measured, all)| measured as f64 / all as f64);
        books.unexplained = books.unexplained(unended, uncounted(sample));
        books
    }

    /// Registrations whose entry and end were seen; negative where the counts contradict each other.
    fn closed(&self) -> Option<i128> {
        let (ledger, refused, missed) = (self.ledger?, self.refused_early?, self.missed_entries?);
        Some(i128::from(ledger) - i128::from(refused) - i128::from(missed))
    }

    /// What was measured, of what; `None` before the first. Skipped runs are missed entries as far as calls without one
    /// go: those that succeeded, and as many of those that failed.
    pub(super) fn measured(&self) -> Option<(u64, u64)> {
        let all = self.ledger.filter(|ledger| *ledger > 0)?;
        let (missed, refused) = (self.missed_entries?, self.refused_early?);
        let missed = missed.max(self.skipped_entries.min(missed.saturating_add(refused)));
        Some((all.saturating_sub(missed), all))
    }

    /// `uncounted` runs of the tracepoint's program were skipped: so many calls have returned and will never end.
    fn unexplained(&self, unended: Option<i64>, uncounted: u64) -> Option<u64> {
        let miscounted = self.ledger?.abs_diff(self.counted?);
        let too_many_ends = unended.map_or(0, |open| open.min(0).unsigned_abs());
        // One that has returned is in flight until the tracepoint fires.
        let returns = self.closed().zip(self.returns).zip(self.missed_returns).map_or(0, |((closed, seen), missed)| {
            let ahead = i128::from(seen) + i128::from(missed) - closed;
            let open = i128::from(unended.unwrap_or(0).max(0)) + i128::from(uncounted);
            narrow(ahead - ahead.clamp(0, open)).unsigned_abs()
        });
        Some(miscounted.max(too_many_ends).max(returns))
    }
}

impl PartBooks {
    fn new(sample: &Sample, [entries, returns, missed_returns, missed_entries]: [Counter; 4]) -> Self {
        let count = |counter: Counter| sample.counters[counter as usize];
        let (entries, returns) = (count(entries), count(returns));
        let (missed_returns, missed_entries) = (count(missed_returns), count(missed_entries));
        let in_flight = narrow(i128::from(entries) - i128::from(returns) - i128::from(missed_returns));
        Self { entries, returns, missed_returns, missed_entries, in_flight }
    }
}

/// Results counted of an operation.
fn counted(sample: &Sample, operation: Operation) -> u64 {
    let of = |row: usize| sample.results.iter().skip(row * ERRNO_SLOTS).take(ERRNO_SLOTS);
    let partial = (operation == Operation::Update).then(|| of(PARTIAL_RESULTS)).into_iter().flatten();
    of(operation as usize).chain(partial).fold(0, |sum, count| sum.saturating_add(*count))
}

fn in_flight(operations: &[OperationBooks], sample: &Sample) -> Option<i64> {
    let open = operations.iter().filter_map(|books| books.in_flight).reduce(i64::saturating_add)?;
    if sample.open.is_some() {
        return Some(open);
    }
    Some(narrow(i128::from(open) - i128::from(sample.counters[Counter::Reentries as usize])))
}

fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
