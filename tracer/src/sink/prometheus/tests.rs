use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tracer_ebpf::{
    histogram::{index, upper_bound},
    policy::{Policy, Traits},
};

use super::*;
use crate::{
    aggregate::{
        fold,
        tests::{a_sample, any_known, any_sample},
    },
    answer::fixture::{a_snapshot, context, judged, judgements, shared_file},
    decode::Known,
};

fn service() -> Service {
    let probe = |program: &str, attached| Probe {
        program: program.to_owned(),
        function: "io_sqe_buffers_register".to_owned(),
        kind: "fentry".to_owned(),
        attached,
    };
    Service {
        version: "0.1.0".to_owned(),
        kernel: "6.12.107".to_owned(),
        mode: "fentry".to_owned(),
        probes: vec![probe("register_enter_fentry", true), probe("register_exit_fexit", false)],
        context: context(),
    }
}

fn text(known: &Known) -> String {
    encode(&fold(&a_sample(), known), &service()).unwrap()
}

/// Samples of the text format by name and labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn every_bound_ends_a_bucket() {
    for bounds in [Bounds::Time, Bounds::Vmas, Bounds::Buffers, Bounds::Age, Bounds::Ordinal, Bounds::Bytes] {
        let values = bounds.values();
        assert!(values.is_sorted() && values.iter().collect::<BTreeSet<_>>().len() == values.len());
        for bound in values {
            assert_eq!(upper_bound(index(bound)), bound, "{bounds:?}");
        }
    }
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert!(metric.name.starts_with("pinscope_"));
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Type::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        assert!(!metric.labels.contains(&"le") && !metric.source.is_empty());
    }
}

#[test]
fn every_metric_of_the_list_is_served_with_its_labels() {
    let families = families(&a_snapshot(), &service());
    let served: BTreeMap<_, _> = families.iter().map(|family| (family.name(), family)).collect();
    assert_eq!(served.len(), METRICS.len());
    for metric in METRICS {
        for sample in served[metric.name].get_metric() {
            let labels: Vec<_> = sample.get_label().iter().map(proto::LabelPair::name).collect();
            assert_eq!(labels, metric.labels, "{}", metric.name);
        }
    }
}

#[test]
fn figures_are_those_of_the_snapshot() {
    let samples = parse(&text(&Known::all()));
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
        ("pinscope_coverage_ratio", 1.0),
        ("pinscope_books_balanced", 1.0),
        ("pinscope_attached_seconds", 10.0),
        (
            "pinscope_probe_attached{program=\"register_exit_fexit\",function=\"io_sqe_buffers_register\",kind=\"fentry\"}",
            0.0,
        ),
        ("pinscope_info{version=\"0.1.0\",kernel=\"6.12.107\",mode=\"fentry\"}", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn what_the_answers_rest_on_is_served() {
    let samples = parse(&encode(&a_snapshot(), &service()).unwrap());
    for (name, value) in [
        ("pinscope_question_state{question=\"Q1\",state=\"answered\"}", 1.0),
        ("pinscope_question_state{question=\"Q1\",state=\"unanswerable\"}", 0.0),
        ("pinscope_question_state{question=\"Q7\",state=\"unanswerable\"}", 1.0),
        ("pinscope_installations_total{requests=\"before\"}", 3.0),
        ("pinscope_installations_total{requests=\"after\"}", 312.0),
        ("pinscope_unlisted_installations_total", 0.0),
        ("pinscope_ring_installation_ordinal_bucket{le=\"0\"}", 0.0),
        ("pinscope_ring_installation_ordinal_bucket{le=\"1\"}", 3.0),
        ("pinscope_ring_age_seconds_count", 3.0),
        ("pinscope_ring_gap_seconds_bucket{le=\"0.001048575\"}", 0.0),
        ("pinscope_ring_gap_seconds_bucket{le=\"0.004194303\"}", 1.0),
        ("pinscope_judged_buffers_total{judged=\"clean\"}", 100.0),
        ("pinscope_judged_buffers_total{judged=\"other\"}", 2.0),
        (
            "pinscope_policy_refusals_total{policy=\"since_6_5\",errno=\"EFAULT\",class=\"file\",filesystem=\"ext4\"}",
            2.0,
        ),
        (
            "pinscope_policy_refused_bytes_total{policy=\"before_6_5\",errno=\"EOPNOTSUPP\",class=\"file\",filesystem=\"ext4\"}",
            8192.0,
        ),
        ("pinscope_policy_answers_total{answer=\"agreed\"}", 102.0),
        ("pinscope_policy_answers_total{answer=\"accepted_though_refused\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn more_judgements_never_lower_a_counter() {
    let of = |buffers: u64, more: Vec<_>| {
        let others = [vec![judged(shared_file(), 0, buffers), judged(shared_file(), 95, buffers)], more].concat();
        let judgements = judgements(Policy::SingleSource, others);
        parse(&encode(&Snapshot { judgements: Some(judgements), ..a_snapshot() }, &service()).unwrap())
    };
    let (before, after) = (of(3, vec![]), of(5, vec![judged(Traits::SEVERAL_SOURCES, 22, 1)]));
    for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[name] >= *value, "{name}");
    }
    let name = "pinscope_policy_refusals_total{policy=\"single_source\",errno=\"EOPNOTSUPP\",class=\"file\",filesystem=\"ext4\"}";
    assert_eq!((before[name], after[name]), (6.0, 10.0));
}

#[test]
fn the_unknown_is_absent() {
    let text = text(&Known::nothing());
    let names: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [
            "pinscope_attached_seconds",
            "pinscope_books_balanced",
            "pinscope_degraded_reasons",
            "pinscope_info",
            "pinscope_lost_total",
            "pinscope_probe_attached",
            "pinscope_question_state",
            "pinscope_skipped_runs_total",
        ]
    );
    assert!(!text.contains("what=\"backings\""));
}

#[test]
fn a_label_may_hold_anything() {
    let mut sample = a_sample();
    sample.filesystems.insert(9, "a\"b\\c\nd".to_owned());
    let text = encode(&fold(&sample, &Known::all()), &service()).unwrap();
    assert!(text.contains(r#"filesystem="a\"b\\c\nd""#), "{text}");
}

#[test]
fn the_page_names_every_metric_once() {
    let page = metrics_markdown();
    for metric in METRICS {
        assert_eq!(page.matches(&format!("\n| `{}` |", metric.name)).count(), 1);
    }
    assert!(page.contains("| `pinscope_walk_seconds_total` | counter | seconds |"));
    assert!(page.contains("- `pinscope_registration_vmas`: 0 1 2 3 4 8 15 31 "));
}

proptest! {
    #[test]
    fn counters_never_go_back(sample in any_sample(), more in any_sample(), known in any_known()) {
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
        let before = encode(&fold(&sample, &known), &service()).unwrap();
        let after = parse(&encode(&fold(&later, &known), &service()).unwrap());
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
