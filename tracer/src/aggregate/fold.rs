//! A sample of the maps to a snapshot.

use std::cmp::Reverse;

use tracer_ebpf::{
    counter::{Counter, ERRNO_SLOTS, PARTIAL_RESULTS},
    histogram::Histogram,
    operation::Operation,
    record::{ProcessKey, ProcessTotals},
};

use super::{
    Backing, Books, Distribution, Faults, Locks, Losses, Outcome, Phases, Process, ResultCount, Skipped, Snapshot,
    Split, Unregisters, Walks, gather::habits, snapshot,
};
use crate::{
    decode::{Capabilities, PARTIAL, comm, filesystem, result_name},
    figure::{Figure, FigureSet, Figures},
    sample::Sample,
};

/// The snapshot of everything since the programs were attached.
pub fn fold(sample: &Sample, capabilities: &Capabilities) -> Snapshot {
    Fold::new(sample, capabilities).snapshot(sample)
}

/// The snapshot of the time between two samples. The books are those of the whole session up to `later`.
pub fn fold_between(later: &Sample, earlier: &Sample, capabilities: &Capabilities) -> Snapshot {
    Fold::new(&later.since(earlier), capabilities).snapshot(later)
}

pub(super) struct Fold<'a> {
    pub(super) sample: &'a Sample,
    pub(super) capabilities: &'a Capabilities,
    /// What of it is told.
    pub(super) figures: Figures,
}

impl<'a> Fold<'a> {
    fn new(sample: &'a Sample, capabilities: &'a Capabilities) -> Self {
        Self { sample, capabilities, figures: capabilities.told() }
    }

    /// The books are those of `all`.
    fn snapshot(&self, all: &Sample) -> Snapshot {
        let books = Books::new(all, self.capabilities, &self.figures);
        let has = |figure: Figure| self.figures.has(figure);
        let [buffers, bytes, vmas] = [Figure::Buffers, Figure::Bytes, Figure::Vmas].map(has);
        let (pin, files) = (has(Figure::PinTime), has(Figure::Files));
        let faults = has(Figure::PinFaults).then(|| self.faults());
        let mut figures = self.figures.clone();
        books.figures.bound(&mut figures);
        if let Some(reason) = faults.as_ref().and_then(short_faults) {
            figures.bound(FigureSet::of(&[Figure::PinFaults, Figure::FaultTime]), reason);
        }
        Snapshot {
            elapsed_ns: self.sample.elapsed_ns,
            operations: has(Figure::Results).then(|| Operation::ALL.map(|operation| self.operation(operation)).into()),
            split: self.split(),
            pin: pin.then(|| self.distribution(Histogram::Pin as usize)),
            registration_vmas: vmas.then(|| self.distribution(Histogram::VmasPerRegistration as usize)),
            buffer_vmas: vmas.then(|| self.distribution(Histogram::VmasPerBuffer as usize)),
            registration_buffers: buffers.then(|| self.distribution(Histogram::BuffersPerRegistration as usize)),
            registration_bytes: bytes.then(|| self.distribution(Histogram::BytesPerRegistration as usize)),
            refused_bytes: bytes.then(|| self.count(Counter::RefusedBytes)),
            faults,
            lookups: has(Figure::Lookups).then(|| self.count(Counter::Lookups)),
            multi_file_buffers: files.then(|| self.count(Counter::MultiFileBuffers)),
            multi_vm_file_buffers: files.then(|| self.count(Counter::MultiVmFileBuffers)),
            backings: has(Figure::Backings).then(|| self.backings()),
            processes: has(Figure::Processes).then(|| self.processes()),
            installations: self.installations(),
            rings: self.rings(),
            costs: (has(Figure::Processes) && vmas && pin).then(|| self.costs()),
            largest_registration: self.largest(0),
            largest_buffer: self.largest(1),
            judgements: has(Figure::Refusals).then(|| self.judgements()),
            shared_buffer_files: has(Figure::FileNames).then(|| self.shared_files()),
            workloads: None,
            walks: vmas.then(|| self.walks()),
            unregisters: self.unregisters(),
            books,
            skipped: self.skipped(),
            lost: self.losses(),
            figures,
            calls: self.call_times(),
            under_way: self.under_way(),
            locks: Locks::new(self.sample, &self.figures),
            phases: Phases::new(self.sample, &self.figures),
            registered: self.sample.registered.clone().filter(|_| has(Figure::Registered)),
            runs: self.sample.runs.clone(),
            own: self.sample.own.clone(),
        }
    }

    /// Whether the operation is timed.
    fn timed(&self, operation: Operation) -> bool {
        self.figures.has(Figure::duration_of(operation))
    }

    fn faults(&self) -> Faults {
        Faults {
            minor: self.count(Counter::MinorFaults),
            major: self.count(Counter::MajorFaults),
            untold_buffers: self.figures.has(Figure::HugePageFaults).then(|| self.count(Counter::UntoldFaults)),
        }
    }

    fn unregisters(&self) -> Option<Unregisters> {
        let [cleanups, ring_exits] = [Figure::Cleanups, Figure::RingExits].map(|figure| self.figures.has(figure));
        (cleanups || ring_exits).then(|| Unregisters {
            internal: cleanups.then(|| self.count(Counter::InternalUnregisters)),
            ring_exit: ring_exits.then(|| self.count(Counter::RingExitUnregisters)),
        })
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.sample.counters[counter as usize]
    }

    pub(super) fn distribution(&self, number: usize) -> Distribution {
        self.sample.histograms.get(number).map(Distribution::from_slots).unwrap_or_default()
    }

    fn operation(&self, operation: Operation) -> snapshot::Operation {
        let results = self.results(operation as usize);
        let partial_reasons = if operation == Operation::Update { self.results(PARTIAL_RESULTS) } else { Vec::new() };
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        let partial = sum(&mut partial_reasons.iter().map(|(_, count)| *count));
        let mut named: Vec<_> = results.iter().map(|(errno, count)| result(slot_name(*errno), *count)).collect();
        if partial > 0 {
            named.push(result(PARTIAL.to_owned(), partial));
            named.sort_by_key(|result| Reverse(result.count));
        }
        let reason = |errno| if errno == 0 { "unknown".to_owned() } else { slot_name(errno) };
        snapshot::Operation {
            operation,
            ok: sum(&mut results.iter().filter(|(errno, _)| *errno == 0).map(|(_, count)| *count)),
            partial,
            failed: sum(&mut results.iter().filter(|(errno, _)| *errno != 0).map(|(_, count)| *count)),
            results: named,
            partial_reasons: partial_reasons.into_iter().map(|(errno, count)| result(reason(errno), count)).collect(),
            duration: self.timed(operation).then(|| self.outcome(operation)),
        }
    }

    /// Results that came, by errno (0 is success), most frequent first.
    fn results(&self, row: usize) -> Vec<(usize, u64)> {
        let slots = self.sample.results.iter().skip(row * ERRNO_SLOTS).take(ERRNO_SLOTS);
        let mut results: Vec<_> =
            slots.enumerate().map(|(errno, count)| (errno, *count)).filter(|(_, count)| *count > 0).collect();
        results.sort_by_key(|(_, count)| Reverse(*count));
        results
    }

    fn outcome(&self, operation: Operation) -> Outcome {
        Outcome {
            ok: self.distribution(Histogram::DurationOk as usize + operation as usize),
            partial: if operation == Operation::Update {
                self.distribution(Histogram::DurationPartial as usize)
            } else {
                Distribution::default()
            },
            failed: self.distribution(Histogram::DurationFailed as usize + operation as usize),
        }
    }

    fn split(&self) -> Option<Split> {
        let operations = [Operation::Register, Operation::Update];
        let timed = operations.into_iter().filter(|operation| self.timed(*operation));
        let whole = timed.map(|operation| self.outcome(operation).whole());
        let total_ns = whole.reduce(|a, b| a.merge(&b)).filter(|_| self.figures.has(Figure::PinTime))?.sum();
        let pin_ns = self.distribution(Histogram::Pin as usize).sum();
        let missed = [
            Counter::PinMissedReturns,
            Counter::BufferMissedReturns,
            Counter::PinMissedEntries,
            Counter::BufferMissedEntries,
        ];
        let of_parts = missed.map(|counter| self.count(counter)).into_iter().max().unwrap_or(0);
        // A duration whose return was missed ends later, at the tracepoint.
        let of_calls = operations.map(|operation| self.sample.counters[Counter::MissedReturns.of(operation)]);
        let complete = of_parts == 0 && of_calls == [0; 2];
        Some(Split { total_ns, pin_ns, rest_ns: total_ns.saturating_sub(pin_ns), complete })
    }

    fn backings(&self) -> Vec<Backing> {
        let told = self.sample.backings.iter().filter_map(|(key, totals)| {
            Some(Backing {
                class: key.kind.class()?,
                filesystem: filesystem(key.kind, self.sample.filesystems.get(&key.filesystem).cloned()),
                shared: key.kind.is_shared(),
                writable: key.kind.is_writable(),
                ok: !key.kind.is_failed(),
                buffers: totals.buffers,
                vmas: totals.vmas,
                bytes: totals.bytes,
            })
        });
        let mut backings: Vec<Backing> = Vec::new();
        for backing in told {
            // Two `file_system_type`s can bear one name (a module unloaded and loaded again).
            match backings.iter_mut().find(|other| same_backing(other, &backing)) {
                Some(other) => {
                    other.buffers = other.buffers.saturating_add(backing.buffers);
                    other.vmas = other.vmas.saturating_add(backing.vmas);
                    other.bytes = other.bytes.saturating_add(backing.bytes);
                }
                None => backings.push(backing),
            }
        }
        backings.sort_by(|a, b| {
            let order = |backing: &Backing| {
                (Reverse(backing.bytes), backing.class, backing.shared, backing.writable, !backing.ok)
            };
            order(a).cmp(&order(b)).then_with(|| a.filesystem.cmp(&b.filesystem))
        });
        backings
    }

    fn processes(&self) -> Vec<Process> {
        let mut processes: Vec<_> =
            self.sample.processes.iter().map(|(key, totals)| self.process(*key, totals)).collect();
        processes.sort_by_key(|process| (Reverse(process.registrations), process.pid));
        processes
    }

    /// Sums of which no call was measured are unknown.
    fn process(&self, key: ProcessKey, totals: &ProcessTotals) -> Process {
        let measured = totals.registrations > totals.unmeasured;
        let told = [Figure::Buffers, Figure::Bytes, Figure::Vmas, Figure::PinTime];
        let [buffers, bytes, walk, pins] = told.map(|figure| self.figures.has(figure) && measured);
        let timed = Operation::ALL.iter().any(|operation| self.timed(*operation)) && measured;
        Process {
            pid: key.into(),
            comm: comm(&totals.comm),
            uid: totals.uid,
            cgroup_id: (totals.cgroup > 0).then_some(totals.cgroup),
            registrations: totals.registrations,
            failed: totals.failed,
            partial: totals.partial,
            unmeasured: totals.unmeasured,
            lower_bounds: totals.missed > 0,
            buffers: buffers.then_some(totals.buffers),
            bytes: buffers.then_some(totals.bytes),
            refused_bytes: bytes.then_some(totals.refused_bytes),
            vmas: walk.then_some(totals.vmas),
            duration_ns: timed.then_some(totals.duration_ns),
            pin_ns: pins.then_some(totals.pin_ns),
            habits: buffers.then(|| habits(&totals.habits, &self.figures)),
        }
    }

    fn walks(&self) -> Walks {
        Walks {
            complete: self.count(Counter::WalksComplete),
            hole: self.count(Counter::WalksHole),
            busy: self.count(Counter::WalksBusy),
            cut: self.count(Counter::WalksCut),
            none: self.count(Counter::WalksNone),
            vmas: self.count(Counter::WalkVmas),
            nanoseconds: self.count(Counter::WalkNanoseconds),
        }
    }

    fn skipped(&self) -> Vec<Skipped> {
        self.sample.skipped.iter().map(|(program, runs)| Skipped { program: program.clone(), runs: *runs }).collect()
    }

    fn losses(&self) -> Losses {
        let capabilities = self.capabilities;
        let has = |figure: Figure| self.figures.has(figure);
        let (entries, vmas) = (capabilities.entries.contains(&true), has(Figure::Vmas));
        Losses {
            registration_records: capabilities.records.then(|| self.count(Counter::LostRegistrationRecords)),
            buffer_records: capabilities.records.then(|| self.count(Counter::LostBufferRecords)),
            frames: entries.then(|| self.count(Counter::LostFrames)),
            processes: has(Figure::Processes).then(|| self.count(Counter::LostProcesses)),
            backings: vmas.then(|| self.count(Counter::LostBackings)),
            reentries: entries.then(|| self.count(Counter::Reentries)),
            descendants: capabilities.descent.then(|| self.count(Counter::LostDescendants)),
            short_records: vmas.then(|| self.count(Counter::ShortRecords)),
            rings: has(Figure::Rings).then(|| self.count(Counter::LostRings)),
            judgements: vmas.then(|| self.count(Counter::LostJudgements)),
            tables: self
                .sample
                .registered
                .as_ref()
                .filter(|_| has(Figure::Registered))
                .map(|registered| registered.lost),
            calls: entries.then(|| self.count(Counter::LostCalls)),
            files: (has(Figure::Files) && has(Figure::Processes)).then(|| self.count(Counter::LostFiles)),
        }
    }
}

/// Of buffers whose number is known. Where it is not, the plan says so for the whole session.
fn short_faults(faults: &Faults) -> Option<String> {
    let lack = faults.lack().filter(|_| faults.untold_buffers.is_some())?;
    Some(format!("lower bounds, {lack}: before 6.5 the pin brings those in without one"))
}

fn same_backing(a: &Backing, b: &Backing) -> bool {
    (a.class, &a.filesystem, a.shared, a.writable, a.ok) == (b.class, &b.filesystem, b.shared, b.writable, b.ok)
}

fn result(result: String, count: u64) -> ResultCount {
    ResultCount { result, count }
}

fn slot_name(errno: usize) -> String {
    if errno + 1 == ERRNO_SLOTS { "other".to_owned() } else { result_name(-(errno as i64)) }
}
