use std::collections::{BTreeMap, BTreeSet};

use prometheus::{TextEncoder, proto};
use proptest::prelude::*;
use tracer_ebpf::{
    histogram::{SLOTS, SUM, index, upper_bound},
    policy::{Policy, Traits},
};

use super::*;
use crate::{
    aggregate::{
        fold,
        registered::Registered,
        tests::{a_sample, any_capabilities, any_sample},
        workloads::{WorkloadFigures, Workloads},
    },
    answer::fixture::{a_snapshot, context, judged, judgements, private_file, shared_file},
    decode::Capabilities,
    figure::{Figure, Figures},
    probe::health::Status,
    sample::Sample,
    sink::{exports::Counts, service::Probe},
};

pub(crate) fn service() -> Service {
    let probe = |program: &str, attached| Probe {
        program: program.to_owned(),
        function: "io_sqe_buffers_register".to_owned(),
        kind: "fentry".to_owned(),
        attached,
    };
    Service {
        health: Status::Degraded,
        probes: vec![probe("register_enter_fentry", true), probe("register_exit_fexit", false)],
        context: context(),
        exports: Some(Counts::default()),
    }
}

/// Every metric has a sample in it.
pub(crate) fn a_degraded_snapshot() -> Snapshot {
    let mut snapshot = a_snapshot();
    snapshot.figures.lose(&[Figure::WorkloadsV1], "avoided: on request");
    snapshot
}

fn text(capabilities: &Capabilities) -> String {
    encode(&fold(&a_sample(), capabilities), &service())
}

/// Samples of the text format by name and labels.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn every_bound_ends_a_bucket() {
    for bounds in [
        Bounds::Time,
        Bounds::Vmas,
        Bounds::Buffers,
        Bounds::Age,
        Bounds::Ordinal,
        Bounds::Bytes,
        Bounds::WorkloadTime,
        Bounds::WorkloadVmas,
    ] {
        let values = bounds.values();
        assert!(values.is_sorted() && values.iter().collect::<BTreeSet<_>>().len() == values.len());
        for bound in values {
            assert_eq!(upper_bound(index(bound)), bound, "{bounds:?}");
        }
    }
}

/// From the kernel side's slots to the lines that are served: what is at a bound is counted there, what is one above
/// is not.
#[test]
fn buckets_are_exact_at_their_bounds() {
    for bounds in [Bounds::Time, Bounds::Vmas, Bounds::Buffers, Bounds::Age, Bounds::Ordinal, Bounds::Bytes] {
        for bound in bounds.values() {
            let mut slots = [0; SLOTS];
            for value in [bound, bound + 1] {
                slots[index(value)] += 1;
                slots[SUM] += value;
            }
            let distribution = Distribution::from_slots(&slots);
            let histogram = Histogram::of(bounds, &Value::Distribution(&distribution)).unwrap();
            let served = bounds.shown().into_iter().zip(histogram.cumulative);
            for ((le, count), upper) in served.zip(bounds.values()) {
                let expected = u64::from(upper >= bound) + u64::from(upper > bound);
                assert_eq!(count, expected, "{bounds:?}: le {upper} of {bound} and {}", bound + 1);
                // In the metric's unit too, as text: the value at the bound is not above it, the next one is.
                let le: f64 = le.to_string().parse().unwrap();
                assert!(bounds.scale(upper) <= le && bounds.scale(upper + 1) > le, "{bounds:?}: {upper} as {le}");
            }
            assert_eq!(histogram.count, 2);
        }
    }
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        // Those of the process have the names that every Prometheus client gives them.
        assert!(metric.name.starts_with("pinscope_") || metric.name.starts_with("process_"));
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Type::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        assert!(!metric.labels.contains(&"le") && !metric.source.is_empty());
    }
}

#[test]
fn every_metric_of_the_list_is_served_with_its_labels() {
    let families = families(&a_degraded_snapshot(), &service());
    let served: BTreeMap<_, _> = families.iter().map(|family| (family.name(), family)).collect();
    assert_eq!(served.len(), METRICS.len());
    for metric in METRICS {
        for sample in served[metric.name].get_metric() {
            let labels: Vec<_> = sample.get_label().iter().map(proto::LabelPair::name).collect();
            assert_eq!(labels, metric.labels, "{}", metric.name);
        }
    }
}

/// By the crate's own encoder, which lets pass what shows nothing of itself.
fn encoded_by_others(snapshot: &Snapshot, service: &Service) -> String {
    let text = TextEncoder::new().encode_to_string(&families(snapshot, service)).unwrap();
    text.split('\n').map(crate::human::seen).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_text_is_what_the_crates_own_encoder_writes() {
    for snapshot in [a_degraded_snapshot(), fold(&a_sample(), &Capabilities::nothing())] {
        assert_eq!(encode(&snapshot, &service()), encoded_by_others(&snapshot, &service()));
    }
    // What has to be escaped, and what is no whole number.
    let mut snapshot = a_degraded_snapshot();
    snapshot.figures = Figures::default();
    let reasons = ["a \"word\"", r"back\slash", "two\nlines", "ends in \\", "\n", ""];
    for (figure, reason) in Figure::ALL.into_iter().rev().zip(reasons) {
        snapshot.figures.lose(&[figure], reason);
    }
    let of = |text: &str| text.lines().filter(|line| line.contains("degraded_reason{")).count();
    let text = encode(&snapshot, &service());
    assert_eq!((text.clone(), of(&text)), (encoded_by_others(&snapshot, &service()), 6));
}

#[test]
fn no_label_moves_a_cursor_or_turns_a_line() {
    let mut snapshot = a_degraded_snapshot();
    snapshot.figures = Figures::default();
    snapshot.figures.lose(&[Figure::WorkloadsV1], "\u{1b}[2J\r\u{9b}\u{202e}x: \u{7f}");
    let text = encode(&snapshot, &service());
    assert!(
        !text.chars().any(|character| character != '\n' && (character.is_control() || character == '\u{202e}')),
        "{text:?}"
    );
    assert!(text.contains("reason=\"\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}x: \u{fffd}\""), "{text}");
}

#[test]
fn figures_are_those_of_the_snapshot() {
    let samples = parse(&text(&Capabilities::all()));
    for (name, value) in [
        ("pinscope_registrations_total{operation=\"register\",result=\"ok\"}", 10.0),
        ("pinscope_registrations_total{operation=\"register\",result=\"EFAULT\"}", 2.0),
        ("pinscope_registrations_total{operation=\"update\",result=\"ok\"}", 0.0),
        ("pinscope_registration_duration_seconds_count{operation=\"register\",outcome=\"ok\"}", 10.0),
        ("pinscope_registration_duration_seconds_sum{operation=\"register\",outcome=\"ok\"}", 0.000_85),
        (
            "pinscope_registration_duration_seconds_bucket{operation=\"register\",outcome=\"ok\",le=\"0.000065535\"}",
            9.0,
        ),
        ("pinscope_registration_duration_seconds_bucket{operation=\"register\",outcome=\"ok\",le=\"+Inf\"}", 10.0),
        ("pinscope_registration_vmas_bucket{le=\"0\"}", 0.0),
        ("pinscope_registration_vmas_bucket{le=\"1\"}", 9.0),
        ("pinscope_registration_vmas_bucket{le=\"63\"}", 9.0),
        ("pinscope_registration_vmas_bucket{le=\"127\"}", 10.0),
        (
            "pinscope_backing_bytes_total{class=\"file\",filesystem=\"ext4\",shared=\"true\",writable=\"true\",outcome=\"failed\"}",
            8192.0,
        ),
        ("pinscope_page_faults_total{kind=\"minor\"}", 300.0),
        ("pinscope_vma_lookups_total", 12.0),
        ("pinscope_walk_seconds_total", 0.000_064),
        ("pinscope_entries_total{hook=\"pin\"}", 40.0),
        ("pinscope_in_flight{hook=\"register\"}", 0.0),
        ("pinscope_lost_total{what=\"frames\"}", 0.0),
        ("pinscope_coverage_ratio{figure=\"calls\"}", 1.0),
        ("pinscope_unmeasured_total{figure=\"calls\"}", 0.0),
        ("pinscope_measurable_total{figure=\"calls\"}", 14.0),
        ("pinscope_measurable_total{figure=\"buffers\"}", 40.0),
        ("pinscope_books_balanced", 1.0),
        ("pinscope_attached_seconds", 10.0),
        (
            "pinscope_probe_attached{program=\"register_exit_fexit\",function=\"io_sqe_buffers_register\",kind=\"fentry\"}",
            0.0,
        ),
        ("pinscope_info{version=\"0.1.0\",kernel=\"6.12.107-cloud-amd64\",mode=\"fentry\"}", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn what_the_answers_rest_on_is_served() {
    let samples = parse(&encode(&a_snapshot(), &service()));
    for (name, value) in [
        ("pinscope_question_state{question=\"Q1\",state=\"answered\"}", 1.0),
        ("pinscope_question_state{question=\"Q1\",state=\"unanswerable\"}", 0.0),
        ("pinscope_question_state{question=\"Q7\",state=\"unanswerable\"}", 1.0),
        ("pinscope_installations_total{requests=\"before\",kind=\"table\"}", 3.0),
        ("pinscope_installations_total{requests=\"after\",kind=\"table\"}", 312.0),
        ("pinscope_installations_total{requests=\"after\",kind=\"fill\"}", 0.0),
        ("pinscope_emptying_updates_total{requests=\"after\"}", 0.0),
        ("pinscope_ring_installation_ordinal_bucket{le=\"0\"}", 0.0),
        ("pinscope_ring_installation_ordinal_bucket{le=\"1\"}", 3.0),
        ("pinscope_ring_age_seconds_count", 3.0),
        ("pinscope_ring_gap_seconds_bucket{le=\"0.001048575\"}", 0.0),
        ("pinscope_ring_gap_seconds_bucket{le=\"0.004194303\"}", 1.0),
        ("pinscope_judged_buffers_total{judged=\"clean\"}", 100.0),
        ("pinscope_judged_buffers_total{judged=\"other\"}", 3.0),
        (
            "pinscope_policy_refusals_total{policy=\"since_6_5\",errno=\"EFAULT\",class=\"file\",filesystem=\"ext4\",outcome=\"failed\"}",
            2.0,
        ),
        (
            "pinscope_policy_refused_bytes_total{policy=\"before_6_5\",errno=\"EOPNOTSUPP\",class=\"file\",filesystem=\"ext4\",outcome=\"failed\"}",
            8192.0,
        ),
        ("pinscope_policy_answers_total{answer=\"agreed\"}", 103.0),
        ("pinscope_policy_answers_total{answer=\"accepted_though_refused\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn pinscope_itself_is_served() {
    let samples = parse(&encode(&a_degraded_snapshot(), &service()));
    for (name, value) in [
        ("pinscope_registered_buffers", 40.0),
        ("pinscope_registered_bytes", 163_840.0),
        ("pinscope_pinned_bytes", 40_960.0),
        ("pinscope_registered_rings", 6.0),
        ("pinscope_registered_unknown_rings", 1.0),
        ("pinscope_registered_lower_bound", 1.0),
        ("pinscope_program_runs_total{program=\"ledger\"}", 14.0),
        ("pinscope_program_run_seconds_total{program=\"ledger\"}", 0.000_007),
        ("pinscope_degraded_reason{figure=\"workloads by cgroup v1\",reason=\"avoided: on request\"}", 1.0),
        ("pinscope_health{status=\"degraded\"}", 1.0),
        ("pinscope_health{status=\"healthy\"}", 0.0),
        ("process_cpu_seconds_total", 1.25),
        ("process_resident_memory_bytes", 8_388_608.0),
        ("process_max_fds", 1024.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn a_sum_that_lacks_something_is_marked() {
    let bound = "pinscope_registered_lower_bound";
    let of = |registered| {
        let sample = Sample { registered, ..a_sample() };
        parse(&encode(&fold(&sample, &Capabilities::all()), &service()))
    };
    let whole = Registered { from_before: true, ..Registered::default() };
    assert_eq!(of(Some(whole.clone())).get(bound), Some(&0.0));
    let full = of(Some(Registered { lost: 1, ..whole.clone() }));
    assert_eq!((full.get(bound), full.get("pinscope_lost_total{what=\"tables\"}")), (Some(&1.0), Some(&1.0)));
    assert_eq!(of(Some(Registered { unknown_rings: 1, ..whole })).get(bound), Some(&1.0));
    assert_eq!(of(Some(Registered::default())).get(bound), Some(&1.0));
    assert!(!of(None).keys().any(|name| name.starts_with("pinscope_registered_") || name == "pinscope_pinned_bytes"));
}

#[test]
fn workloads_are_served() {
    let samples = parse(&encode(&a_snapshot(), &service()));
    let id = "0123456789abcdef".repeat(4);
    let container = format!(
        "pinscope_workload_info{{workload=\"docker/0123456789ab\",kind=\"container\",unit=\"\",slice=\"system.slice\",pod_uid=\"\",container_id=\"{id}\",runtime=\"docker\"}}"
    );
    for (name, value) in [
        (container.as_str(), 1.0),
        ("pinscope_workload_registrations_total{workload=\"fio.service\",outcome=\"ok\"}", 3.0),
        ("pinscope_workload_registrations_total{workload=\"other\",outcome=\"failed\"}", 0.0),
        ("pinscope_workload_registration_duration_seconds_bucket{workload=\"fio.service\",le=\"0.000008191\"}", 0.0),
        ("pinscope_workload_registration_duration_seconds_bucket{workload=\"fio.service\",le=\"0.000065535\"}", 3.0),
        ("pinscope_workload_registration_duration_seconds_bucket{workload=\"fio.service\",le=\"+Inf\"}", 3.0),
        ("pinscope_workload_registration_duration_seconds_sum{workload=\"fio.service\"}", 0.000_03),
        ("pinscope_workload_registration_vmas_bucket{workload=\"fio.service\",le=\"1\"}", 2.0),
        ("pinscope_workload_registration_vmas_bucket{workload=\"fio.service\",le=\"1023\"}", 2.0),
        ("pinscope_workload_registration_vmas_count{workload=\"fio.service\"}", 3.0),
        ("pinscope_workload_registration_vmas_sum{workload=\"fio.service\"}", 2002.0),
        ("pinscope_workload_bytes_total{workload=\"fio.service\"}", 12288.0),
        ("pinscope_workload_policy_refusals_total{workload=\"fio.service\",policy=\"before_6_5\"}", 1.0),
        ("pinscope_workloads", 2.0),
        ("pinscope_workloads_folded_total{cause=\"gone\"}", 2.0),
        ("pinscope_workload_unattributed_calls_total", 0.0),
        ("pinscope_workload_folders_cut", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
    // What is not told is absent, not zero.
    let told = WorkloadFigures { durations: true, buffers: true, pins: true, ..WorkloadFigures::default() };
    let workloads = Workloads { told, ..a_snapshot().workloads.unwrap() };
    let text = encode(&Snapshot { workloads: Some(workloads), ..a_snapshot() }, &service());
    for name in ["registration_vmas", "policy_refusals_total", "installations_total"] {
        assert!(!text.contains(&format!("pinscope_workload_{name}")), "{name}");
    }
    assert!(text.contains("pinscope_workload_bytes_total"));
}

#[test]
fn more_judgements_never_lower_a_counter() {
    let of = |buffers: u64, more: Vec<_>| {
        let others = [vec![judged(shared_file(), 0, buffers), judged(shared_file(), 95, buffers)], more].concat();
        let judgements = judgements(Policy::SingleSource, others);
        parse(&encode(&Snapshot { judgements: Some(judgements), ..a_snapshot() }, &service()))
    };
    let (before, after) = (of(3, vec![]), of(5, vec![judged(Traits::SEVERAL_SOURCES, 22, 1)]));
    for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[name] >= *value, "{name}");
    }
    let name = "pinscope_policy_refusals_total{policy=\"single_source\",errno=\"EOPNOTSUPP\",class=\"file\",filesystem=\"ext4\",outcome=\"ok\"}";
    assert_eq!((before[name], after[name]), (3.0, 5.0));
}

#[test]
fn what_another_kernel_answers_otherwise_is_served_both_ways() {
    // What mappings get on real kernels: a private one of a file, a shared one, anonymous memory of more than 1 GiB.
    let of = |policy, others: [(Traits, i32); 3]| {
        let others = others.map(|(traits, errno)| judged(traits, errno, 1)).into();
        let judgements = judgements(policy, others);
        let samples = parse(&encode(&Snapshot { judgements: Some(judgements), ..a_snapshot() }, &service()));
        let changes = samples.into_iter().filter(|(name, _)| {
            name.starts_with("pinscope_policy_changes_total") || name.starts_with("pinscope_kernel_policy")
        });
        let labels = |name: String| name.split('"').skip(1).step_by(2).take(3).collect::<Vec<_>>().join(" ");
        changes.map(|(name, value)| (labels(name), value)).collect::<BTreeMap<_, _>>()
    };
    let is = |changes: BTreeMap<String, f64>, wanted: &[(&str, f64)]| {
        let wanted = wanted.iter().map(|(labels, count)| ((*labels).to_owned(), *count)).collect::<BTreeMap<_, _>>();
        assert_eq!(changes, wanted);
    };
    let all = |errnos: [i32; 3]| [(private_file(), errnos[0]), (shared_file(), errnos[1]), (Traits::LARGE, errnos[2])];
    is(
        of(Policy::SingleSource, all([95, 95, 14])),
        &[
            ("single_source", 1.0),
            ("since_6_5 accepted EOPNOTSUPP", 1.0),
            ("since_7_2 accepted EOPNOTSUPP", 1.0),
            ("since_7_2 accepted EFAULT", 1.0),
        ],
    );
    is(
        of(Policy::Since65, all([0, 14, 14])),
        &[
            ("since_6_5", 1.0),
            ("before_6_5 refused EOPNOTSUPP", 1.0),
            ("single_source refused EOPNOTSUPP", 1.0),
            ("as_proposed refused EFAULT", 1.0),
            ("since_7_2 accepted EFAULT", 1.0),
        ],
    );
    is(
        of(Policy::Since72, all([0, 14, 0])),
        &[
            ("since_7_2", 1.0),
            ("before_6_5 refused EOPNOTSUPP", 1.0),
            ("before_6_5 refused EFAULT", 1.0),
            ("single_source refused EOPNOTSUPP", 1.0),
            ("single_source refused EFAULT", 1.0),
            ("as_proposed refused EFAULT", 2.0),
            ("since_6_5 refused EFAULT", 1.0),
        ],
    );
}

#[test]
fn the_unknown_is_absent() {
    let service = Service { exports: None, ..service() };
    let text = encode(&fold(&a_sample(), &Capabilities::nothing()), &service);
    let names: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(
        names.into_iter().filter(|name| !name.starts_with("process_")).collect::<Vec<_>>(),
        [
            "pinscope_build_info",
            "pinscope_degraded_reasons",
            "pinscope_health",
            "pinscope_info",
            "pinscope_probe_attached",
            "pinscope_program_run_seconds_total",
            "pinscope_program_runs_total",
            "pinscope_question_state",
            "pinscope_skipped_runs_total",
        ]
    );
}

#[test]
fn a_label_may_hold_anything() {
    let mut sample = a_sample();
    sample.filesystems.insert(9, "a\"b\\c\nd".to_owned());
    let text = encode(&fold(&sample, &Capabilities::all()), &service());
    assert!(text.contains(r#"filesystem="a\"b\\c\nd""#), "{text}");
}

#[test]
fn every_line_of_the_page_is_short() {
    for line in metrics_markdown().lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn the_page_names_every_metric_once() {
    let page = metrics_markdown();
    for metric in METRICS {
        assert_eq!(page.matches(&format!("\n- `{}` (", metric.name)).count(), 1);
    }
    assert!(page.contains("\n- `pinscope_walk_seconds_total` (counter, seconds): "));
    assert!(page.contains("- `pinscope_registration_vmas`: 0 1 2 3 4 8 15 31 "));
}

proptest! {
    #[test]
    fn counters_never_go_back(sample in any_sample(), more in any_sample(), capabilities in any_capabilities()) {
        let mut later = sample.clone();
        for (now, more) in later.counters.iter_mut().zip(&more.counters) {
            *now = now.saturating_add(*more);
        }
        for (now, more) in later.results.iter_mut().zip(&more.results) {
            *now = now.saturating_add(*more);
        }
        for (now, more) in later.histograms.iter_mut().flatten().zip(more.histograms.iter().flatten()) {
            *now = now.saturating_add(*more);
        }
        let before = encode(&fold(&sample, &capabilities), &service());
        prop_assert_eq!(&before, &encoded_by_others(&fold(&sample, &capabilities), &service()));
        let after = parse(&encode(&fold(&later, &capabilities), &service()));
        for (name, value) in parse(&before) {
            let is_counter = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| {
                name.split('{').next().is_some_and(|name| name.ends_with(end))
            });
            if is_counter {
                prop_assert!(after.get(&name).is_some_and(|after| *after >= value), "{name}");
            }
        }
    }
}
