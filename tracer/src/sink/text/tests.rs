use proptest::prelude::*;
use serde_json::{Value, json};
use tracer_ebpf::{
    backing::{BackingKey, Kind},
    counter::Counter,
    operation::Operation,
    record::ProcessKey,
};

use super::*;
use crate::{
    aggregate::{
        Habits, Process, fold,
        tests::{a_sample, any_capabilities, any_sample},
    },
    answer::{
        Origin,
        fixture::{a_snapshot, context, habits, installations, process, ring, rings},
        tests::any_snapshot,
    },
    decode::Capabilities,
    figure::Figure,
    sample::Sample,
};

fn meta() -> Meta {
    Meta { origin: context().origin, scope: "the whole machine".to_owned(), ..Meta::default() }
}

/// Holds a report against its file, which was looked at in a terminal of 80 columns.
fn golden(report: &str, expected: &str) {
    assert!(report == expected, "the report changed; it is now\n{report}");
}

#[test]
fn a_session_that_lost_something() {
    let mut capabilities = Capabilities { lookups: false, ..Capabilities::all() };
    let reason = "none of gup_vma_lookup, check_vma_flags and find_extend_vma can be traced on this kernel";
    capabilities.figures.lose(&[Figure::Lookups], reason);
    let mut sample = a_sample();
    for (counter, count) in [
        (Counter::WalksBusy, 2),
        (Counter::PinMissedReturns, 3),
        (Counter::PinEntries, 43),
        (Counter::LostBufferRecords, 1_234_567),
    ] {
        sample.counters[counter as usize] = count;
    }
    sample.counters[Counter::Entries.of(Operation::Register)] += 1;
    let command = "fio --name=x --ioengine=io_uring --fixedbufs=1 --mem=mmap --rw=randread --size=1G --bs=4k";
    let meta = Meta { command: Some(command.to_owned()), exit_code: Some(0), ..meta() };
    golden(&report(&fold(&sample, &capabilities), &meta, &Answers::default(), WIDTH), include_str!("golden/lost.txt"));
}

#[test]
fn descendants_that_outlived_the_command_are_told() {
    let head = |left_running| {
        let meta = Meta { command: Some("server".to_owned()), exit_code: Some(0), left_running, ..meta() };
        report(&fold(&a_sample(), &Capabilities::all()), &meta, &Answers::default(), WIDTH)
    };
    assert!(head(Some(2)).contains("2 descendants of the command still ran when it ended"));
    assert_eq!(head(Some(0)), head(None));
}

#[test]
fn a_session_in_which_all_is_well() {
    golden(
        &report(&fold(&a_sample(), &Capabilities::all()), &meta(), &Answers::default(), WIDTH),
        include_str!("golden/well.txt"),
    );
}

#[test]
fn a_kernel_that_gives_nothing_but_counts() {
    golden(
        &report(
            &fold(&a_sample(), &Capabilities { ledger: true, ..Capabilities::nothing() }),
            &meta(),
            &Answers::default(),
            WIDTH,
        ),
        include_str!("golden/counts.txt"),
    );
}

#[test]
fn a_process_that_was_not_measured_has_no_zeros() {
    let mut sample = a_sample();
    (sample.processes[0].1.unmeasured, sample.processes[0].1.missed) = (3, 3);
    (sample.processes[1].1.unmeasured, sample.processes[1].1.missed) = (1, 1);
    let text = report(&fold(&sample, &Capabilities::all()), &meta(), &Answers::default(), WIDTH);
    assert!(
        text.contains("\n  fio 42                         3        0        -         -         -       -\n"),
        "{text}"
    );
    assert!(text.contains("      40+ 10.0 MiB+   500 µs+   80.0%\n  fio"), "{text}");
    assert!(text.contains("\n  +: of some of its calls the entry was not seen"), "{text}");
}

#[test]
fn a_session_without_registrations() {
    let sample = Sample { elapsed_ns: 5_000_000_000, ..Sample::default() };
    golden(
        &report(&fold(&sample, &Capabilities::all()), &meta(), &Answers::default(), WIDTH),
        include_str!("golden/nothing.txt"),
    );
}

#[test]
fn many_processes_and_backings_are_summed() {
    let mut sample = a_sample();
    for number in 100..200 {
        let process = sample.processes[0].1;
        sample.processes.push((ProcessKey { began_ns: number.into(), pid: number, reserved: 0 }, process));
    }
    for kind in 0..40 {
        let (_, totals) = sample.backings[0];
        sample.backings.push((BackingKey { kind: Kind(kind), ..BackingKey::default() }, totals));
    }
    let text = report(&fold(&sample, &Capabilities::all()), &meta(), &Answers::default(), WIDTH);
    assert!(text.contains("  94 others "), "{text}");
    assert!(text.contains(" more kinds "), "{text}");
}

#[test]
fn processes_of_one_number_and_name_are_told_apart() {
    let began = |began_ns: u64| Process {
        pid: ProcessKey { began_ns, pid: 42, reserved: 0 }.into(),
        ..process(42, "fio", habits())
    };
    let alone = Snapshot { processes: Some(vec![began(12_345_678_901), process(7, "fio", habits())]), ..a_snapshot() };
    let text = report(&alone, &meta(), &Answers::default(), WIDTH);
    assert!(text.contains("\n  fio 42 ") && !text.contains('@'), "{text}");
    let both = vec![began(12_345_678_901), began(99_000_000_000), process(7, "fio", habits())];
    let json = serde_json::to_value(&both).unwrap();
    assert_eq!([&json[0]["pid"], &json[1]["pid"]], [42, 42]);
    assert_eq!(
        (&json[0]["process_began_ns"], &json[2]["process_began_ns"]),
        (&json!(12_345_678_901_u64), &Value::Null)
    );
    let text = report(&Snapshot { processes: Some(both), ..a_snapshot() }, &meta(), &Answers::default(), WIDTH);
    for row in ["\n  fio 42 @12.345s ", "\n  fio 42 @99.000s ", "\n  fio 7 ", "\n  @: when the process began"] {
        assert!(text.contains(row), "{row} in {text}");
    }
}

/// A process with the faults that are commonest, and one without.
fn explained() -> Snapshot {
    let faulted = Habits {
        enomem: Some(2),
        minor_faults: Some(4096),
        faulting_pin_ns: Some(6_000_000),
        faulting_bytes: Some(16 << 20),
        repeated: 90,
        repeated_ns: 5_000_000,
        ..habits()
    };
    let processes = vec![process(7, "server", faulted), process(42, "fio", habits())];
    Snapshot { processes: Some(processes), ..a_snapshot() }
}

#[test]
fn the_questions_and_what_to_change() {
    let snapshot = explained();
    let told = Answers::new(&snapshot, &context(), true);
    golden(&report(&snapshot, &meta(), &told, WIDTH), include_str!("golden/questions.txt"));
}

#[test]
fn questions_that_lack_the_same_are_told_together() {
    let snapshot = fold(&Sample::default(), &Capabilities::all());
    let text = report(&snapshot, &meta(), &Answers::new(&snapshot, &context(), false), WIDTH);
    assert!(text.contains("\nQ1 Q2 Q3 Q4 Q5 Q7 unanswerable: "), "{text}");
    assert!(!text.contains("WHAT TO CHANGE"));
}

#[test]
fn a_long_table_is_cut_and_says_so() {
    let list = (0..20).map(|fd| ring(7, "server", fd, 1, 0, 0)).collect();
    let rings = rings(list);
    let snapshot = Snapshot { installations: Some(installations(&rings)), rings: Some(rings), ..a_snapshot() };
    let text = report(&snapshot, &meta(), &Answers::new(&snapshot, &context(), false), WIDTH);
    assert!(text.contains("\n     and 12 more\n"), "{text}");
}

proptest! {
    #[test]
    fn no_line_of_the_questions_is_wider_than_the_page(snapshot in any_snapshot(), width in 0_usize..200) {
        let told = Answers::new(&snapshot, &context(), true);
        for line in report(&snapshot, &meta(), &told, width).lines() {
            prop_assert!(line.chars().count() <= width.clamp(NARROWEST, WIDEST), "{line}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_page(
        sample in any_sample(),
        capabilities in any_capabilities(),
        text in "\\PC{0,120}",
        width in 0_usize..200,
    ) {
        let meta = Meta { scope: text.clone(), command: Some(text.clone()), exit_code: Some(i32::MIN), origin: Origin::new(&text, "fentry"), ..meta() };
        let width_of = |width: usize| width.clamp(NARROWEST, WIDEST);
        for line in report(&fold(&sample, &capabilities), &meta, &Answers::default(), width).lines() {
            prop_assert!(line.chars().count() <= width_of(width), "{line}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
