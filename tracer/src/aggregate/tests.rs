use std::collections::BTreeSet;

use proptest::prelude::*;
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals, Class, Kind},
    counter::{Counter, RESULT_SLOTS, partial_slot, result_slot},
    histogram::{Histogram, SLOTS, SUM, index},
    operation::Operation,
    record::{self, ProcessKey, ProcessTotals},
};

use super::{
    Books, ResultCount, Snapshot, fold, fold_between,
    registered::{Registered, Share},
    snapshot,
};
use crate::{
    decode::Capabilities,
    figure::{Degree, Figure, Figures},
    sample::{Call, Runs, Sample, SampledRing, SelfUsage},
};

fn record(sample: &mut Sample, histogram: usize, value: u64, times: u64) {
    sample.histograms[histogram][index(value)] += times;
    sample.histograms[histogram][SUM] += value * times;
}

fn key(pid: u32, began_ns: u64) -> ProcessKey {
    ProcessKey { began_ns, pid, reserved: 0 }
}

fn process(comm: &[u8], registrations: u64) -> ProcessTotals {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm);
    ProcessTotals {
        registrations,
        failed: registrations / 5,
        buffers: registrations * 4,
        bytes: registrations << 20,
        vmas: registrations * 4,
        duration_ns: registrations * 50_000,
        pin_ns: registrations * 40_000,
        cgroup: 1,
        uid: 1000,
        comm: name,
        ..ProcessTotals::default()
    }
}

fn backing(class: Class, shared: bool, filesystem: u64, failed: bool, buffers: u64) -> (BackingKey, BackingTotals) {
    let kind = Kind::new(class, shared, true);
    let kind = if failed { kind.failed() } else { kind };
    let key = BackingKey { filesystem, kind, reserved: 0 };
    (key, BackingTotals { buffers, vmas: buffers * 2, bytes: buffers * 4096 })
}

/// Twelve registers (two refused), one clone, one unregister; books that balance.
pub(crate) fn a_sample() -> Sample {
    let mut sample =
        Sample { elapsed_ns: 10_000_000_000, now_ns: Some(0), calls: Some(Vec::new()), ..Sample::default() };
    for (operation, calls) in [(Operation::Register, 12), (Operation::Clone, 1), (Operation::Unregister, 1)] {
        for counter in [Counter::Entries, Counter::Returns, Counter::Ledger] {
            sample.counters[counter.of(operation)] = calls;
        }
        sample.results[result_slot(operation, 0)] = calls;
    }
    sample.results[result_slot(Operation::Register, 0)] = 10;
    sample.results[result_slot(Operation::Register, -14)] = 2;
    for (counter, count) in [
        (Counter::BufferEntries, 40),
        (Counter::BufferReturns, 40),
        (Counter::PinEntries, 40),
        (Counter::PinReturns, 40),
        (Counter::WalksComplete, 38),
        (Counter::WalksHole, 2),
        (Counter::WalkNanoseconds, 64_000),
        (Counter::WalkVmas, 80),
        (Counter::MinorFaults, 300),
        (Counter::MajorFaults, 1),
        (Counter::Lookups, 12),
        (Counter::RingExitUnregisters, 3),
    ] {
        sample.counters[counter as usize] = count;
    }
    record(&mut sample, Histogram::DurationOk as usize, 50_000, 9);
    record(&mut sample, Histogram::DurationOk as usize, 400_000, 1);
    record(&mut sample, Histogram::DurationFailed as usize, 5_000, 2);
    record(&mut sample, Histogram::DurationOk as usize + Operation::Clone as usize, 3_000, 1);
    record(&mut sample, Histogram::DurationOk as usize + Operation::Unregister as usize, 9_000, 1);
    record(&mut sample, Histogram::Pin as usize, 40_000, 10);
    record(&mut sample, Histogram::VmasPerRegistration as usize, 1, 9);
    record(&mut sample, Histogram::VmasPerRegistration as usize, 71, 1);
    record(&mut sample, Histogram::VmasPerBuffer as usize, 1, 36);
    record(&mut sample, Histogram::VmasPerBuffer as usize, 18, 4);
    record(&mut sample, Histogram::BuffersPerRegistration as usize, 4, 10);
    record(&mut sample, Histogram::BytesPerRegistration as usize, 1 << 20, 10);
    sample.backings = vec![
        backing(Class::Anon, false, 0, false, 36),
        backing(Class::File, false, 9, false, 2),
        backing(Class::File, true, 9, true, 2),
    ];
    sample.filesystems.insert(9, "ext4".to_owned());
    sample.skipped.insert("register_enter_fentry".to_owned(), 0);
    sample.registered = Some(Registered {
        rings: 6,
        unknown_rings: 1,
        all: Share { buffers: 40, bytes: 40 * 4096, pinned: 10 * 4096 },
        from_before: true,
        ..Registered::default()
    });
    sample.runs = Some([("ledger".to_owned(), Runs { count: 14, nanoseconds: 7_000 })].into());
    sample.own = Some(SelfUsage {
        cpu_seconds: 1.25,
        resident_bytes: 8 << 20,
        virtual_bytes: 80 << 20,
        open_fds: Some(30),
        max_fds: Some(1024),
        threads: 2,
        started_seconds: 1_700_000_000.0,
    });
    sample.processes = vec![(key(42, 1), process(b"fio", 3)), (key(7, 2), process(b"server", 10))];
    sample
}

/// Samples of any content.
pub(crate) fn any_sample() -> impl Strategy<Value = Sample> {
    let figure = || (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift);
    let process = (figure(), figure(), figure(), any::<[u8; 16]>()).prop_map(|(a, b, c, comm)| ProcessTotals {
        registrations: a,
        failed: b,
        partial: c,
        unmeasured: a.min(b),
        missed: a.min(b).min(c),
        buffers: c,
        bytes: a,
        refused_bytes: b,
        vmas: b,
        duration_ns: c,
        pin_ns: a,
        habits: record::Habits { enomem: a, repeated_ns: b, ..record::Habits::ZERO },
        recent: [c; 4],
        recent_elsewhere: [b; 4],
        cgroup: b,
        uid: c as u32,
        reserved: 0,
        comm,
    });
    let totals = (figure(), figure(), figure());
    let backing = (0_u32..64, 0_u64..4, totals).prop_map(|(kind, filesystem, (buffers, vmas, bytes))| {
        (BackingKey { filesystem, kind: Kind(kind), reserved: 0 }, BackingTotals { buffers, vmas, bytes })
    });
    (
        prop::collection::vec(figure(), Counter::SLOTS),
        prop::collection::vec((0..RESULT_SLOTS, figure()), 0..20),
        prop::collection::vec((0..Histogram::COUNT, 0..SLOTS, figure()), 0..60),
        prop::collection::vec(backing, 0..12),
        prop::collection::vec((any::<(u32, u64)>().prop_map(|(pid, began_ns)| key(pid, began_ns)), process), 0..20),
        (figure(), "\\PC{0,40}"),
    )
        .prop_map(|(counters, results, histograms, backings, processes, (elapsed_ns, filesystem))| {
            let mut sample = Sample { backings, processes, elapsed_ns, ..Sample::default() };
            sample.counters.copy_from_slice(&counters);
            for (slot, count) in results {
                sample.results[slot] = count;
            }
            for (histogram, slot, count) in histograms {
                sample.histograms[histogram][slot] = count;
            }
            sample.filesystems.insert(1, filesystem);
            sample
        })
}

/// Anything may be said to be missing, or to be there in part, for any reason.
pub(crate) fn any_figures() -> impl Strategy<Value = Figures> {
    let lack = (prop::sample::select(Figure::ALL.to_vec()), any::<bool>(), "\\PC{0,200}");
    prop::collection::vec(lack, 0..4).prop_map(|lacks| {
        let mut figures = Figures::default();
        for (figure, missing, reason) in lacks {
            if missing { figures.lose(&[figure], &reason) } else { figures.narrow(&[figure], &reason) }
        }
        figures
    })
}

/// Anything may be missing.
pub(crate) fn any_capabilities() -> impl Strategy<Value = Capabilities> {
    let operations = || any::<[bool; Operation::COUNT]>();
    let parts = any::<[bool; 10]>();
    (operations(), operations(), any::<[bool; 13]>(), parts, any_figures()).prop_map(
        |(entries, returns, hooks, parts, figures)| {
            let [
                ledger,
                buffers,
                buffer_returns,
                pins,
                walk,
                lookups,
                processes,
                records,
                rings,
                tables,
                ring_requests,
                file_names,
                ring_exits,
            ] = hooks;
            let [
                locks,
                phases,
                fault_times,
                lookup_times,
                accounting_times,
                slow_pins,
                descent,
                lean,
                cleanups,
                huge_pages,
            ] = parts;
            Capabilities {
                entries,
                returns,
                ledger,
                buffers,
                buffer_returns,
                pins,
                lean,
                walk,
                huge_pages,
                lookups,
                processes,
                descent,
                records,
                rings,
                tables,
                ring_requests,
                file_names,
                cleanups,
                ring_exits,
                policy: (None, String::new()),
                calls: ring_exits,
                locks,
                phases,
                fault_times,
                lookup_times,
                accounting_times,
                slow_pins,
                figures,
            }
        },
    )
}

fn register(snapshot: &Snapshot) -> &snapshot::Operation {
    &snapshot.operations()[Operation::Register as usize]
}

#[test]
fn registrations_are_counted_by_operation_and_result() {
    let snapshot = fold(&a_sample(), &Capabilities::all());
    let operation = register(&snapshot);
    assert_eq!((operation.operation, operation.ok, operation.failed), (Operation::Register, 10, 2));
    let result = |result: &str, count| ResultCount { result: result.to_owned(), count };
    assert_eq!(operation.results, [result("ok", 10), result("EFAULT", 2)]);
    assert_eq!(snapshot.operations()[Operation::Update as usize].results, []);
}

#[test]
fn a_partial_update_is_a_result_of_its_own() {
    let mut sample = a_sample();
    sample.results[result_slot(Operation::Update, 0)] = 4;
    sample.results[result_slot(Operation::Update, -22)] = 1;
    sample.results[partial_slot(-14)] = 5;
    sample.results[partial_slot(0)] = 2;
    sample.counters[Counter::Ledger.of(Operation::Update)] = 12;
    sample.counters[Counter::Entries.of(Operation::Update)] = 12;
    sample.counters[Counter::Returns.of(Operation::Update)] = 12;
    let snapshot = fold(&sample, &Capabilities::all());
    let update = &snapshot.operations()[Operation::Update as usize];
    assert_eq!((update.ok, update.partial, update.failed, update.total()), (4, 7, 1, 12));
    let result = |result: &str, count| ResultCount { result: result.to_owned(), count };
    assert_eq!(update.results, [result("partial", 7), result("ok", 4), result("EINVAL", 1)]);
    assert_eq!(update.partial_reasons, [result("EFAULT", 5), result("unknown", 2)]);
    assert_eq!(snapshot.books.operations[Operation::Update as usize].unexplained, Some(0));
    assert!(register(&snapshot).partial_reasons.is_empty());
}

#[test]
fn what_was_counted_and_not_measured_is_unknown() {
    let mut sample = a_sample();
    let processes = |sample: &Sample| fold(sample, &Capabilities::all()).processes.unwrap();
    (sample.processes[0].1.unmeasured, sample.processes[0].1.missed) = (3, 3);
    (sample.processes[1].1.unmeasured, sample.processes[1].1.missed) = (2, 0);
    let told = processes(&sample);
    let (server, fio) = (&told[0], &told[1]);
    assert_eq!((fio.registrations, fio.unmeasured, fio.lower_bounds), (3, 3, true));
    assert_eq!((fio.buffers, fio.bytes, fio.vmas, fio.duration_ns, fio.pin_ns), (None, None, None, None, None));
    assert!(fio.habits.is_none());
    // Refused early: there was nothing to measure.
    assert_eq!((server.unmeasured, server.lower_bounds, server.buffers), (2, false, Some(40)));
    sample.processes[1].1.missed = 1;
    let server = &processes(&sample)[0];
    assert_eq!((server.lower_bounds, server.duration_ns), (true, Some(500_000)));
    let blind = fold(&a_sample(), &Capabilities { processes: true, ledger: true, ..Capabilities::nothing() })
        .processes
        .unwrap();
    assert_eq!((blind[0].duration_ns, blind[0].buffers), (None, None));
}

#[test]
fn an_errno_beyond_the_last_slot_has_no_name() {
    let mut sample = a_sample();
    sample.results[result_slot(Operation::Update, i64::MIN)] = 5;
    let snapshot = fold(&sample, &Capabilities::all());
    let results = &snapshot.operations()[1].results;
    assert_eq!(results[0].result, "other");
}

#[test]
fn the_rest_is_what_the_pins_leave() {
    let split = fold(&a_sample(), &Capabilities::all()).split.unwrap();
    assert_eq!((split.total_ns, split.pin_ns, split.rest_ns, split.complete), (860_000, 400_000, 460_000, true));
    let mut sample = a_sample();
    sample.counters[Counter::PinMissedReturns as usize] = 1;
    assert!(!fold(&sample, &Capabilities::all()).split.unwrap().complete);
}

#[test]
fn what_no_hook_measures_is_unknown() {
    let sample = a_sample();
    let snapshot = fold(&sample, &Capabilities { walk: false, lookups: false, pins: false, ..Capabilities::all() });
    assert_eq!((snapshot.lookups, snapshot.split, snapshot.faults, snapshot.walks), (None, None, None, None));
    assert_eq!((snapshot.registration_vmas, snapshot.backings), (None, None));
    assert_eq!(snapshot.processes.unwrap()[0].vmas, None);
    let nothing = fold(&sample, &Capabilities::nothing());
    assert_eq!(nothing.operations, None);
    let counted = fold(&sample, &Capabilities { ledger: true, ..Capabilities::nothing() });
    assert_eq!((register(&counted).ok, &register(&counted).duration), (10, &None));
    assert_eq!((nothing.processes, nothing.unregisters), (None, None));
}

#[test]
fn backings_and_processes_are_sorted() {
    let snapshot = fold(&a_sample(), &Capabilities::all());
    let backings = snapshot.backings.unwrap();
    let told: Vec<_> =
        backings.iter().map(|b| (b.class.name(), b.filesystem.as_deref(), b.shared, b.ok, b.bytes)).collect();
    assert_eq!(
        told,
        [
            ("anon", None, false, true, 147_456),
            ("file", Some("ext4"), false, true, 8192),
            ("file", Some("ext4"), true, false, 8192),
        ]
    );
    let processes: Vec<_> = snapshot.processes.unwrap().into_iter().map(|p| (p.pid, p.comm, p.registrations)).collect();
    assert_eq!(processes, [(key(7, 2).into(), "server".to_owned(), 10), (key(42, 1).into(), "fio".to_owned(), 3)]);
}

/// Twelve processes one after the other with one number and one fd, each with a ring of its own.
#[test]
fn a_number_that_was_given_again_is_another_process() {
    let mut sample = a_sample();
    sample.processes = (1..=12).map(|began_ns| (key(42, began_ns), process(b"fio", 1))).collect();
    let ring = |began_ns| {
        let totals =
            record::Ring { installations: 1, created_ns: began_ns, fd: 3, pid: 42, began_ns, ..record::Ring::ZERO };
        SampledRing { address: began_ns, totals, ..SampledRing::default() }
    };
    sample.rings = (1..=12).map(ring).collect();
    let snapshot = fold(&sample, &Capabilities::all());
    let told: Vec<_> = snapshot.processes.iter().flatten().map(|p| (p.pid.to_string(), p.registrations)).collect();
    assert_eq!(told, vec![("42".to_owned(), 1); 12]);
    let list = snapshot.rings.and_then(|rings| rings.list).unwrap();
    let owners: BTreeSet<_> = list.iter().map(|ring| ring.pid).collect();
    assert_eq!(owners.len(), 12);
}

#[test]
fn a_filesystem_that_came_twice_is_one() {
    let mut sample = a_sample();
    sample.filesystems.insert(10, "ext4".to_owned());
    sample.backings.push(backing(Class::File, false, 10, false, 3));
    let backings = fold(&sample, &Capabilities::all()).backings.unwrap();
    assert_eq!(backings.len(), 3);
    assert_eq!(backings[1].buffers, 5);
}

#[test]
fn books_that_balance() {
    let books = fold(&a_sample(), &Capabilities::all()).books;
    assert!(books.balanced);
    assert_eq!(books.coverage, Some(1.0));
    assert_eq!((books.operations[0].in_flight, books.operations[0].unexplained), (Some(0), Some(0)));
    assert_eq!(books.pins.map(|pins| pins.in_flight), Some(0));
}

/// The books after some counters were changed.
fn books_after(changes: &[(usize, u64)]) -> Books {
    let mut sample = a_sample();
    for (slot, count) in changes {
        sample.counters[*slot] = *count;
    }
    fold(&sample, &Capabilities::all()).books
}

#[test]
fn what_is_under_way_is_no_imbalance() {
    let books = books_after(&[(Counter::Entries.of(Operation::Register), 14)]);
    assert!(books.balanced);
    assert_eq!(books.operations[0].in_flight, Some(2));
    let returned = [(Counter::Entries.of(Operation::Register), 14), (Counter::Returns.of(Operation::Register), 13)];
    assert!(books_after(&returned).balanced);
}

#[test]
fn what_cannot_be_known_to_be_under_way_is_not_told() {
    let mut capabilities = Capabilities::all();
    capabilities.figures.lose(&[Figure::UnderWay], "BTF has no task_struct.stack");
    let mut sample = a_sample();
    sample.counters[Counter::Entries.of(Operation::Register)] = 14;
    let snapshot = fold(&sample, &Capabilities { figures: capabilities.told(), ..capabilities });
    let in_flight: Vec<_> = snapshot.books.operations.iter().filter_map(|books| books.in_flight).collect();
    assert_eq!((snapshot.under_way, snapshot.books.in_flight, in_flight), (None, None, Vec::new()));
    assert!(snapshot.books.balanced);
    assert!(snapshot.figures.shown().any(|lack| lack == "calls under way: BTF has no task_struct.stack"));
}

#[test]
fn calls_that_began_before_are_told_and_miss_nothing() {
    let books = books_after(&[(Counter::EarlyCalls as usize, 3)]);
    assert_eq!((books.begun_before, books.balanced, books.coverage), (Some(3), true, books_after(&[]).coverage));
}

#[test]
fn entries_that_never_end_are_not_under_way() {
    let entries = Counter::Entries.of(Operation::Register);
    let books = books_after(&[(entries, 14), (Counter::LostFrames as usize, 1), (Counter::Reentries as usize, 2)]);
    assert_eq!((books.balanced, books.in_flight), (true, Some(0)));
    let books = books_after(&[(Counter::Reentries as usize, 2)]);
    assert_eq!((books.balanced, books.in_flight), (false, Some(-2)));
}

#[test]
fn what_does_not_add_up_is_said() {
    let entries = Counter::Entries.of(Operation::Register);
    let returns = Counter::Returns.of(Operation::Register);
    let ledger = Counter::Ledger.of(Operation::Register);
    for (changes, unexplained) in [
        (vec![(entries, 11)], 1),
        (vec![(returns, 10)], 2),
        (vec![(returns, 13)], 1),
        (vec![(ledger, 15), (entries, 15), (returns, 15)], 3),
    ] {
        let books = books_after(&changes);
        assert_eq!((books.balanced, books.operations[0].unexplained), (false, Some(unexplained)), "{changes:?}");
    }
    assert!(!books_after(&[(Counter::PinReturns as usize, 41)]).balanced);
}

#[test]
fn missed_returns_balance_the_books() {
    let books = books_after(&[
        (Counter::Returns.of(Operation::Register), 9),
        (Counter::MissedReturns.of(Operation::Register), 3),
        (Counter::PinReturns as usize, 38),
        (Counter::PinMissedReturns as usize, 2),
    ]);
    assert!(books.balanced);
    assert_eq!(books.missed_returns(), 5);
}

#[test]
fn what_was_not_seen_lowers_the_coverage() {
    let missed = [
        (Counter::Entries.of(Operation::Register), 9),
        (Counter::Returns.of(Operation::Register), 9),
        (Counter::MissedEntries.of(Operation::Register), 3),
    ];
    let books = books_after(&missed);
    assert_eq!((books.balanced, books.operations[0].coverage), (true, Some(0.75)));
    assert_eq!(books.coverage, Some(11.0 / 14.0));
    assert_eq!(books_after(&[(Counter::LostFrames as usize, 7)]).coverage, Some(0.5));
    assert_eq!(fold(&Sample::default(), &Capabilities::all()).books.coverage, None);
}

#[test]
fn each_figure_has_its_own_coverage_and_a_sum_that_lacks_something_says_so() {
    let whole = fold(&a_sample(), &Capabilities::all());
    assert!(whole.figures.is_whole());
    let mut sample = a_sample();
    for (program, runs) in [("buffer_enter_fentry", 10), ("ledger_classic", 2), ("pin_enter_fentry", 5)] {
        sample.skipped.insert(program.to_owned(), runs);
    }
    sample.counters[Counter::StrayBuffers as usize] = 3;
    sample.counters[Counter::UntimedCalls as usize] = 4;
    let short = fold(&sample, &Capabilities::all());
    let of = |figure: &str| short.books.figures.by_figure().find(|(name, _)| *name == figure).unwrap().1.missed;
    assert_eq!(["calls", "buffers", "pins", "walks", "call_times"].map(of), [2, 13, 13, 13, 6]);
    let bounds = short.figures.lacks().iter().map(|lack| lack.degree);
    assert_eq!(bounds.collect::<Vec<_>>(), [Degree::LowerBound; 5]);
    assert!(short.books.balanced && short.books.coverage.unwrap() < 1.0);
}

#[test]
fn a_call_without_an_entry_had_a_buffer_at_least() {
    let buffers = |stray: u64, lean: bool| {
        let mut sample = a_sample();
        sample.counters[Counter::MissedEntries.of(Operation::Register)] = 3;
        sample.counters[Counter::StrayBuffers as usize] = stray;
        fold(&sample, &Capabilities { lean, ..Capabilities::all() }).books.figures.buffers.unwrap().missed
    };
    assert_eq!([0, 2, 5].map(|stray| buffers(stray, false)), [3, 3, 5]);
    assert_eq!(buffers(2, true), 5);
}

#[test]
fn a_hook_that_nothing_is_held_against_unbalances_the_books_when_it_is_skipped() {
    for program in ["ring_created", "lock_wanted", "lock_returned"] {
        let mut sample = a_sample();
        sample.skipped.insert(program.to_owned(), 1);
        let snapshot = fold(&sample, &Capabilities::all());
        assert_eq!((snapshot.books.balanced, snapshot.figures.lacks().len()), (false, 1), "{program}");
        assert!(fold(&sample, &Capabilities { rings: false, locks: false, ..Capabilities::all() }).books.balanced);
    }
}

#[test]
fn an_operation_that_only_the_ledger_counts_is_no_loss() {
    let mut sample = a_sample();
    let unregister = Operation::Unregister;
    for counter in [Counter::Entries, Counter::Returns] {
        sample.counters[counter.of(unregister)] = 0;
    }
    sample.counters[Counter::MissedEntries.of(unregister)] = 1;
    let capabilities =
        Capabilities { entries: [true, true, true, false], returns: [true, true, true, false], ..Capabilities::all() };
    let books = fold(&sample, &capabilities).books;
    assert_eq!((books.balanced, books.coverage, books.operations[3].missed_entries), (true, Some(1.0), None));
}

#[test]
fn an_interval_has_its_own_figures_and_the_sessions_books() {
    let earlier = a_sample();
    let mut later = a_sample();
    later.elapsed_ns += 5;
    later.counters[Counter::Entries.of(Operation::Register)] += 3;
    later.counters[Counter::Ledger.of(Operation::Register)] += 3;
    later.counters[Counter::Returns.of(Operation::Register)] += 3;
    later.results[result_slot(Operation::Register, 0)] += 3;
    later.processes[0].1.registrations += 3;
    let snapshot = fold_between(&later, &earlier, &Capabilities::all());
    assert_eq!((snapshot.elapsed_ns, register(&snapshot).ok, register(&snapshot).failed), (5, 3, 0));
    assert_eq!(snapshot.backings, Some(Vec::new()));
    assert_eq!(snapshot.processes.unwrap().len(), 1);
    assert!(snapshot.books.balanced);
    assert_eq!(snapshot.books.operations[0].ledger, Some(15));
}

/// Calls whose ends the kernel skipped are missing from the coverage, and nowhere under way once their tasks are gone.
#[test]
fn skipped_ends_are_told_and_the_books_heal() {
    let mut sample = a_sample();
    for (operation, skipped) in [(Operation::Register, 2), (Operation::Unregister, 1)] {
        sample.counters[Counter::Ledger.of(operation)] -= skipped;
        sample.results[result_slot(operation, 0)] -= skipped;
    }
    // An unregistration's entry counts at its end.
    sample.counters[Counter::Entries.of(Operation::Unregister)] -= 1;
    sample.skipped = [("ledger_classic".to_owned(), 3)].into();
    let books = |open| Books::new(&Sample { open, ..sample.clone() }, &Capabilities::all(), &Figures::default());
    let (alive, unseen, gone) = (books(Some([1, 0, 0, 0])), books(None), books(Some([0; 4])));
    for (books, in_flight) in [(&alive, 1), (&unseen, 2), (&gone, 0)] {
        assert_eq!((books.in_flight, books.operations[0].in_flight), (Some(in_flight), Some(in_flight)));
        assert!(books.balanced, "{books:?}");
        let calls = books.figures.calls.expect("calls");
        assert_eq!((calls.measured, calls.missed), (11, 3));
    }
    // Nothing explains a fourth.
    sample.counters[Counter::Returns.of(Operation::Unregister)] += 4;
    assert!(!Books::new(&sample, &Capabilities::all(), &Figures::default()).balanced);
}

proptest! {
    #[test]
    fn any_sample_folds(later in any_sample(), earlier in any_sample(), capabilities in any_capabilities()) {
        fold(&later, &capabilities);
        fold_between(&later, &earlier, &capabilities);
    }

    #[test]
    fn nothing_happens_between_a_sample_and_itself(sample in any_sample()) {
        let delta = sample.since(&sample);
        prop_assert!(delta.counters.iter().chain(&delta.results).all(|count| *count == 0));
        prop_assert!(delta.histograms.iter().flatten().all(|count| *count == 0));
    }

    #[test]
    fn an_interval_and_what_was_before_it_are_the_whole(sample in any_sample(), more in any_sample()) {
        let mut later = sample.clone();
        for (now, then) in later.counters.iter_mut().zip(&more.counters) {
            *now = now.saturating_add(*then);
        }
        let delta = later.since(&sample);
        for ((now, then), between) in later.counters.iter().zip(&sample.counters).zip(&delta.counters) {
            prop_assert_eq!(*now, then + between);
        }
    }
}

#[test]
fn a_skipped_entry_is_not_taken_for_a_refusal() {
    let mut sample = a_sample();
    sample.counters[Counter::Entries.of(Operation::Register)] = 9;
    sample.counters[Counter::Returns.of(Operation::Register)] = 9;
    sample.counters[Counter::RefusedEarly.of(Operation::Register)] = 2;
    sample.counters[Counter::MissedEntries.of(Operation::Register)] = 1;
    for (skipped, measured) in [(0, 11.0), (1, 11.0), (2, 10.0), (3, 9.0), (9, 9.0)] {
        sample.skipped.insert("register_enter_fentry".to_owned(), skipped);
        let books = fold(&sample, &Capabilities::all()).books;
        assert_eq!(books.operations[0].coverage, Some(measured / 12.0), "{skipped}");
        assert!(books.balanced && books.operations[0].in_flight == Some(0));
    }
}

/// A call of which it is not known whether it has ended is marked as soon as an end may have been missed.
#[test]
fn calls_that_may_have_ended_say_so() {
    let call = |age_ns: u64, sure| Call {
        since_ns: 100_000_000_000 - age_ns,
        operation: 0,
        pid: 1,
        tid: 2,
        comm: [0; 16],
        sure,
    };
    let unseen = |calls: &[Call], skipped: &[(&str, u64)]| {
        let mut sample = a_sample();
        sample.now_ns = Some(100_000_000_000);
        sample.calls = Some(calls.to_vec());
        sample.skipped = skipped.iter().map(|(program, runs)| ((*program).to_owned(), *runs)).collect();
        let under_way = fold(&sample, &Capabilities::all()).under_way.unwrap();
        (under_way.long.len(), under_way.unseen_ends)
    };
    let (short, long) = (900_000_000, 2_000_000_000);
    let calls = [call(long, false), call(long, true), call(long, false), call(short, false)];
    for (skipped, expected) in [
        (&[][..], 0),
        (&[("register_enter_fentry", 9)], 0),
        (&[("ledger_classic", 1)], 1),
        (&[("call_exit_fexit", 1), ("ledger", 4)], 2),
    ] {
        assert_eq!(unseen(&calls, skipped), (3, expected), "{skipped:?}");
    }
    assert_eq!(unseen(&[call(long, true)], &[("ledger", 7)]), (1, 0));
    let untold = Sample { calls: None, ..a_sample() };
    assert_eq!(fold(&untold, &Capabilities::all()).under_way, None);
}
