//! Whatever a kernel lacks: no output shows a number for a figure that is missing, and the questions that rest on it say so.

use proptest::prelude::*;
use serde_json::Value;
use tracer_ebpf::{
    histogram::{SUM, index},
    record::{self, Cost, JudgedKey, JudgedTotals, SharedFile, SharedFileKey},
};

use super::*;
use crate::{
    aggregate::{
        Snapshot,
        fields::{FIELDS, OF_THE_SESSION},
        fold,
        tests::a_sample,
        workloads,
    },
    answer::{self, fixture},
    kernel::Facts,
    probe::{
        health::health,
        plan::{
            self, Verdict, Wish,
            tests::{any_facts, any_wish},
        },
    },
    sample::{Sample, SampledRing},
    sink::{Meta, json, markdown, page, prometheus, text},
};

/// Something of everything, so that what is shown is a number.
fn a_full_sample() -> Sample {
    let mut sample = a_sample();
    for counter in sample.counters.iter_mut().filter(|counter| **counter == 0) {
        *counter = 3;
    }
    for slots in sample.histograms.iter_mut().filter(|slots| slots[SUM] == 0) {
        slots[index(1)] = 2;
        slots[SUM] = 2;
    }
    sample.details.fill(7);
    sample.costs[0] = Cost {
        buffers: 5,
        vmas: 5,
        bytes: 5,
        pin_ns: 9,
        passes: 5,
        pass_vmas: 5,
        pass_ns: 5,
        faults: 2,
        slow: 1,
        slow_ns: 4,
        ..Cost::default()
    };
    for largest in &mut sample.largest {
        (largest.vmas, largest.bytes, largest.buffers, largest.nanoseconds, largest.pid) = (9, 4096, 1, 500, 7);
    }
    let key = JudgedKey { pid: 7, ..JudgedKey::of_length(tracer_ebpf::policy::Traits::LARGE, 14) };
    sample.judged = vec![(key, JudgedTotals { buffers: 2, bytes: 4096 })];
    let file = SharedFile { buffers: 2, name: [b'x'; 32], ..SharedFile::default() };
    sample.shared_files = vec![(SharedFileKey { pid: 7, ..SharedFileKey::default() }, file)];
    let totals = record::Ring {
        created_ns: 1,
        installations: 12,
        updates: 2,
        after_requests: 11,
        fills: 1,
        fills_after_requests: 1,
        switches: 10,
        switch_gaps: 10,
        switches_from_ns: 2,
        first_ns: 2,
        last_ns: 3_000_000_000,
        last_switch_ns: 3_000_000_000,
        pid: 7,
        ..record::Ring::ZERO
    };
    sample.rings = vec![SampledRing { address: 1, totals, ..SampledRing::default() }];
    for (_, process) in &mut sample.processes {
        let minor_faults = 4096;
        process.habits = record::Habits {
            minor_faults,
            enomem: 1,
            faulting_bytes: 1 << 20,
            faulting_pin_ns: 1,
            ..record::Habits::ZERO
        };
    }
    sample
}

/// The session's snapshot; `fails` tells which programs do not attach.
fn snapshot_of(facts: &Facts, wish: &Wish, processes: bool, fails: impl Fn(&str) -> bool) -> Snapshot {
    let plan = plan::plan(facts, wish);
    let result = |program: &str| if fails(program) { Err("EBUSY".to_owned()) } else { Ok(()) };
    let results: Vec<_> = plan.hooks.iter().map(|hook| (hook.program.clone(), result(&hook.program))).collect();
    let mut health = health(&plan, &results);
    if plan.verdict() == Verdict::Nothing {
        health.fail("nothing can be hooked");
    }
    let capabilities = capabilities(&plan, &results, &health, &Wish { processes, ..wish.clone() });
    let snapshot = fold(&a_full_sample(), &capabilities);
    let told = workloads::WorkloadFigures::of(&snapshot.figures);
    Snapshot { workloads: Some(workloads::Workloads { told, ..fixture::workloads() }), ..snapshot }
}

prop_compose! {
    /// A session on any kernel with anything taken away, with any wish, some of whose programs do not attach.
    fn any_session()(
        facts in any_facts(),
        wish in any_wish(),
        processes: bool,
        failing in prop::collection::vec(prop::bool::weighted(0.05), 64),
    ) -> (Wish, Snapshot) {
        let fails = |program: &str| failing[program.bytes().map(usize::from).sum::<usize>() % failing.len()];
        let snapshot = snapshot_of(&facts, &wish, processes, fails);
        (wish, snapshot)
    }
}

/// What of `value` lies at `path`; `[]` is every place of a list.
fn at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('.').fold(vec![value], |values, part| {
        let (key, place) = part.split_once('[').map_or((part, None), |(key, place)| (key, place.strip_suffix(']')));
        let below = values.into_iter().filter_map(|value| value.get(key));
        match place {
            None => below.collect(),
            Some("") => below.filter_map(Value::as_array).flatten().collect(),
            Some(place) => below.filter_map(|list| list.get(place.parse::<usize>().unwrap())).collect(),
        }
    })
}

/// The paths of all that is no object and no list.
fn leaves(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, paths);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| leaves(value, &format!("{path}[]"), paths)),
        _ => paths.push(path.to_owned()),
    }
}

#[test]
fn every_field_of_a_snapshot_is_of_a_figure_or_of_the_session() {
    let mut paths = Vec::new();
    leaves(&serde_json::to_value(fold(&a_full_sample(), &Capabilities::all())).unwrap(), "", &mut paths);
    assert!(paths.len() > 200, "a poor sample: {}", paths.len());
    let below = |path: &str, of: &str| {
        path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    for path in paths {
        let of_figure = FIELDS.iter().any(|(field, _)| below(&path, field));
        assert!(of_figure || OF_THE_SESSION.iter().any(|field| below(&path, field)), "{path}");
    }
    let whole = serde_json::to_value(fold(&a_full_sample(), &Capabilities::all())).unwrap();
    for (field, _) in FIELDS {
        assert!(!at(&whole, field).is_empty(), "{field} is no field");
    }
}

/// What stands in the text report beside a number of the figure.
const IN_TEXT: &[(Figure, &[&str])] = &[
    (Figure::Results, &["REGISTRATIONS ", "\n  register ok", "\n  register failed"]),
    (Figure::RegisterDuration, &["\n  register ok ", "\n  register failed "]),
    (Figure::UpdateDuration, &["\n  update ok ", "\n  update failed "]),
    (Figure::CloneDuration, &["\n  clone ok "]),
    (Figure::UnregisterDuration, &["\n  unregister ok "]),
    (Figure::Vmas, &["VMAS TOUCHED", "SelfUsage cost: "]),
    (Figure::Backings, &["WHAT LIES BEHIND"]),
    (Figure::Buffers, &["A REGISTRATION'S"]),
    (Figure::Bytes, &["asked for and not registered"]),
    (Figure::PinTime, &["WHERE THE TIME WENT", "\n  pin  ", "of it in the pins"]),
    (Figure::PinFaults, &["in the pins: page faults", "page faults in the pins", "In the pins: "]),
    (Figure::Lookups, &["VMA look-ups by the kernel"]),
    (Figure::LockWaits, &["MMAP_LOCK"]),
    (Figure::Phases, &["PHASES"]),
    (Figure::FaultTime, &["pin: page faults"]),
    (Figure::LookupTime, &["pin: look-ups"]),
    (Figure::AccountingTime, &["rest: accounting"]),
    (Figure::SlowPins, &["took the slow path"]),
    (Figure::CallTime, &["THE CALLERS' TIME"]),
    (Figure::UnderWay, &["STILL UNDER WAY", " in flight"]),
    (Figure::Processes, &["PROCESSES "]),
];

/// What stands in the markdown report, likewise.
const IN_MARKDOWN: &[(Figure, &[&str])] = &[
    (Figure::Results, &["\n- register: "]),
    (Figure::Vmas, &["own cost: "]),
    (Figure::PinTime, &["of it in the pins"]),
    (Figure::PinFaults, &["page faults in the pins", "In the pins: "]),
];

/// Titles of the page's charts.
const CHARTS: &[(Figure, &[&str])] = &[
    (Figure::Vmas, &["VMAs touched by a registration", "VMAs touched by a buffer"]),
    (Figure::Buffers, &["buffers of a registration"]),
    (Figure::Bytes, &["bytes of a registration"]),
    (Figure::PinTime, &["pins of a registration"]),
    (Figure::RegisterDuration, &["register"]),
    (Figure::UpdateDuration, &["update"]),
    (Figure::CloneDuration, &["clone"]),
    (Figure::UnregisterDuration, &["unregister"]),
];

/// Samples of metrics whose label tells another figure than the rest of the metric.
const LABELS: &[(Figure, &str, &str)] = &[
    (Figure::RegisterDuration, "pinscope_registration_duration_seconds", "operation=\"register\""),
    (Figure::UpdateDuration, "pinscope_registration_duration_seconds", "operation=\"update\""),
    (Figure::CloneDuration, "pinscope_registration_duration_seconds", "operation=\"clone\""),
    (Figure::UnregisterDuration, "pinscope_registration_duration_seconds", "operation=\"unregister\""),
    (Figure::FaultTime, "pinscope_phase_seconds_total", "phase=\"pin_faults\""),
    (Figure::LookupTime, "pinscope_phase_seconds_total", "phase=\"pin_lookups\""),
    (Figure::AccountingTime, "pinscope_phase_seconds_total", "phase=\"accounting\""),
    (Figure::SlowPins, "pinscope_phase_pins_total", "path=\"slow\""),
    (Figure::UpdateKinds, "pinscope_installations_total", "kind=\"fill\""),
    (Figure::UpdateKinds, "pinscope_installations_total", "kind=\"replacement\""),
    (Figure::Cleanups, "pinscope_other_unregisters_total", "by=\"cleanup\""),
    (Figure::RingExits, "pinscope_other_unregisters_total", "by=\"ring_exit\""),
    (Figure::Buffers, "pinscope_coverage_ratio", "figure=\"buffers\""),
    (Figure::PinTime, "pinscope_coverage_ratio", "figure=\"pins\""),
    (Figure::Vmas, "pinscope_coverage_ratio", "figure=\"walks\""),
    (Figure::CallTime, "pinscope_coverage_ratio", "figure=\"call_times\""),
];

/// What a wish asks for, at the least.
fn asked(wish: &Wish) -> Vec<Figure> {
    use Figure::{
        AccountingTime, Backings, Buffers, Bytes, CallTime, FaultTime, Files, KernelRule, LockWaits, Lookups, Overlays,
        Phases, PinFaults, PinTime, RegisterDuration, Registered, Requests, Results, Rings, UpdateDuration,
        UpdateKinds, Vmas,
    };
    let always = [
        Results,
        RegisterDuration,
        UpdateDuration,
        Buffers,
        Bytes,
        Vmas,
        Backings,
        Files,
        PinTime,
        PinFaults,
        Requests,
        UpdateKinds,
        Overlays,
        KernelRule,
    ];
    let some: [(bool, &[Figure]); 6] = [
        (wish.lookups, &[Lookups]),
        (wish.phases, &[Phases, FaultTime, AccountingTime]),
        (wish.locks, &[LockWaits]),
        (wish.calls, &[CallTime]),
        (wish.ring, &[Rings]),
        (wish.tables, &[Registered]),
    ];
    let some = some.into_iter().filter(|(asked, _)| *asked).flat_map(|(_, figures)| figures);
    always.into_iter().chain(some.copied()).collect()
}

proptest! {
    #[test]
    fn what_is_asked_for_is_there_or_has_a_reason((wish, snapshot) in any_session()) {
        for figure in asked(&wish) {
            let told = snapshot.figures.has(figure) || snapshot.figures.missing(figure).is_some();
            prop_assert!(told, "{}: {:?}", figure.name(), snapshot.figures);
        }
    }

    #[test]
    fn no_json_has_a_number_for_what_is_missing((_, snapshot) in any_session()) {
        let value = serde_json::to_value(&snapshot).unwrap();
        for (field, figures) in FIELDS {
            let missing = figures.iter().find(|figure| !snapshot.figures.has(**figure));
            if let Some(missing) = missing {
                prop_assert!(at(&value, field).iter().all(|value| value.is_null()), "{field} without {}", missing.name());
            }
        }
    }

    #[test]
    fn no_report_has_a_number_for_what_is_missing((_, snapshot) in any_session()) {
        let told = answer::Answers::new(&snapshot, &fixture::context(), true);
        let report = text::report(&snapshot, &Meta::default(), &told, 120);
        let pasted = markdown::report(&snapshot, &Meta::default(), &told);
        prop_assert!(json::report(&snapshot, &Meta::default(), &told).is_ok());
        for (report, marks) in [(&report, IN_TEXT), (&pasted, IN_MARKDOWN)] {
            for (figure, marks) in marks {
                for mark in *marks {
                    let shown = report.contains(mark) && !snapshot.figures.has(*figure);
                    prop_assert!(!shown, "{mark:?} without {} in\n{report}", figure.name());
                }
            }
        }
    }

    #[test]
    fn no_page_has_a_number_for_what_is_missing((_, snapshot) in any_session()) {
        let page = page::page(&snapshot, &prometheus::tests::service(), None);
        let missing = |figure: Figure| !snapshot.figures.has(figure);
        for (figure, titles) in CHARTS.iter().filter(|(figure, _)| missing(*figure)) {
            for title in *titles {
                let chart = format!("<h3>{title}<span>");
                let shown = page.contains(&chart) && !page.contains(&format!("{chart}not measured"));
                prop_assert!(!shown, "{title} without {}", figure.name());
            }
        }
        prop_assert!(!missing(Figure::Registered) || !page.contains("pinned now</small><b>"));
        prop_assert!(!missing(Figure::Backings) || page.contains("Not measured on this kernel."));
        prop_assert!(!missing(Figure::PinTime) || page.contains("<small>time in the pins</small><b class=\"unknown\">unknown"));
        prop_assert!(!missing(Figure::Buffers) || page.contains("<small>buffers</small><b class=\"unknown\">unknown"));
        prop_assert!(!missing(Figure::Results) || page.contains("<small>calls</small><b class=\"unknown\">unknown"));
    }

    /// OTLP sends the very samples.
    #[test]
    fn no_metric_has_a_number_for_what_is_missing((_, snapshot) in any_session()) {
        let service = prometheus::tests::service();
        let served = prometheus::encode(&snapshot, &service);
        let families = prometheus::families(&snapshot, &service);
        for metric in prometheus::METRICS {
            if let Some(figure) = metric.figure.filter(|figure| !snapshot.figures.has(*figure)) {
                prop_assert!(!served.contains(&format!("# TYPE {} ", metric.name)), "{} without {}", metric.name, figure.name());
                prop_assert!(families.iter().all(|family| family.name() != metric.name));
            }
        }
        for (figure, metric, label) in LABELS.iter().filter(|(figure, _, _)| !snapshot.figures.has(*figure)) {
            let shown = served.lines().find(|line| line.starts_with(metric) && line.contains(label));
            prop_assert_eq!(shown, None, "without {}", figure.name());
        }
    }

    #[test]
    fn every_question_that_rests_on_what_is_missing_says_so((_, snapshot) in any_session()) {
        for (answer, figures) in answer::answers(&snapshot, &fixture::context()).iter().zip(answer::FIGURES) {
            for figure in figures.iter() {
                if let Some(reason) = snapshot.figures.missing(figure) {
                    prop_assert_ne!(answer.state.name(), "answered", "{} without {}: {}", answer.id, figure.name(), reason);
                }
            }
        }
    }
}

/// What the kernel side needs for each figure, as its programs are written: a registration is summed up by the program at the
/// ledger's tracepoint, a buffer is seen inside a register or an update, a pin and a walk inside a buffer.
#[test]
fn a_hook_takes_with_it_all_that_is_counted_inside() {
    use Figure::{
        Buffers, Bytes, FaultTime, Lookups, Phases, PinFaults, PinTime, RegisterDuration, Requests, Results, Rings,
        UpdateDuration, Vmas,
    };
    let inside_pins = [PinTime, PinFaults, Lookups, Phases, FaultTime].as_slice();
    let inside_buffers = [inside_pins, &[Buffers, Bytes, Vmas, Rings, Requests]].concat();
    let inside_calls = [inside_pins, &[Buffers, Bytes, Vmas]].concat();
    let all = [inside_buffers.as_slice(), &[Results, RegisterDuration, UpdateDuration]].concat();
    let cases: [(&[&str], &[Figure]); 5] = [
        (&[], &[]),
        (&["ledger"], &all),
        (&["register_enter", "update_enter"], &[inside_calls.as_slice(), &[RegisterDuration, UpdateDuration]].concat()),
        (&["buffer_enter"], &inside_buffers),
        (&["pin_enter"], inside_pins),
    ];
    for (failing, missing) in cases {
        let fails = |program: &str| failing.iter().any(|name| program.starts_with(name));
        let wish = Wish { tables: false, ..Wish::default() };
        let snapshot = snapshot_of(&crate::kernel::fixture::debian_6_12(), &wish, true, fails);
        for figure in &all {
            assert_eq!(
                !snapshot.figures.has(*figure),
                missing.contains(figure),
                "{} without {failing:?}",
                figure.name()
            );
        }
    }
}

/// A duration without its return ends at the tracepoint.
#[test]
fn what_another_hook_gives_is_there_in_part() {
    let wish = Wish::default();
    let snapshot = snapshot_of(&crate::kernel::fixture::debian_6_12(), &wish, true, |program| {
        program.starts_with("register_exit")
    });
    assert!(matches!(snapshot.figures.of(Figure::RegisterDuration), Availability::Partial(_)));
    assert!(snapshot.operations()[0].duration.is_some());
}
