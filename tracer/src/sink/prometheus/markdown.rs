//! metrics.md, made from the list of metrics so that it cannot fall behind it.

use std::fmt::Write as _;

use super::{Bounds, METRICS, Metric, Type};
use crate::human::wrapped;

/// Columns of a line at most, without the indentation.
const WIDTH: usize = 118;

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from the list in tracer/src/sink/prometheus/table.rs; do not edit. -->

- All counts start when the probes are attached. A restart starts anew, as Prometheus' `rate()` expects.
- **Unknown is absent, never zero:** a metric whose hook this kernel does not offer is not there.
  `pinscope_degraded_reasons` is the number of reasons, and `pinscope doctor` names them.
- Times leave out pinscope's own walks.
- `outcome` of calls: `ok` did everything it was asked for, `partial` is an update that installed some of its buffers
  and stopped at one, `failed` returned an errno.
- `outcome` of buffers: `ok` was registered when its call returned; `failed` was not: it was refused, or pinned and
  released again because another buffer of its call was refused. Times, faults and VMAs include such pins.
- Counts in a histogram's buckets are exact: every `le` is the inclusive end of a bucket that the kernel side keeps.
- The [glossary](glossary.md) explains the words.
";

const QUERIES: &str = "
## Queries

```promql
# Share of registrations that touch a single VMA
(
  sum(rate(pinscope_registration_vmas_bucket{le=~\"1([.]0)?\"}[5m]))
  - sum(rate(pinscope_registration_vmas_bucket{le=~\"0([.]0)?\"}[5m]))
) / sum(rate(pinscope_registration_vmas_count[5m]))

# Share of the time spent in pins
sum(rate(pinscope_pin_duration_seconds_sum[5m]))
  / sum(rate(pinscope_registration_duration_seconds_sum{operation=~\"register|update\"}[5m]))

# Failures per second, by errno
sum by (operation, result) (rate(pinscope_registrations_total{result!=\"ok\"}[5m]))

# Sets of buffers per second that may have replaced others, on rings that are already at work
sum by (instance) (rate(pinscope_installations_total{requests=\"after\", kind=~\"table|replacement|update\"}[5m]))

# Buffers accepted here that another host of the job would refuse, since the probes were attached
sum by (job, instance, policy, errno, class, filesystem) (pinscope_policy_changes_total{change=\"refused\"} > 0)
  and on (job, policy) pinscope_kernel_policy

# Buffers refused here that a newer kernel accepts
sum by (policy, errno, class, filesystem) (
  pinscope_policy_changes_total{change=\"accepted\", policy=~\"since_.*\"}
)

# 99th percentile of a successful registration
histogram_quantile(0.99,
  sum by (le) (rate(pinscope_registration_duration_seconds_bucket{operation=\"register\", outcome=\"ok\"}[5m]))
)
```
";

/// The metrics by topic: a metric belongs to the first topic of which a beginning is its own.
const TOPICS: [(&str, &[&str]); 10] = [
    ("Workloads", &["pinscope_workload"]),
    ("Rings and installations", &["pinscope_ring_", "pinscope_installations_", "pinscope_emptying_"]),
    ("Registered now", &["pinscope_registered_", "pinscope_pinned_"]),
    ("What kernels' rules refuse", &["pinscope_judged_", "pinscope_policy_", "pinscope_kernel_policy"]),
    (
        "On request: mmap_lock, phases, calls",
        &["pinscope_mmap_lock_", "pinscope_phase_", "pinscope_call_", "pinscope_timed_calls_", "pinscope_oldest_call_"],
    ),
    (
        "How complete the figures are",
        &[
            "pinscope_entries_",
            "pinscope_returns_",
            "pinscope_missed_",
            "pinscope_in_flight",
            "pinscope_calls_begun_",
            "pinscope_ledger_",
            "pinscope_refused_early_",
            "pinscope_skipped_",
            "pinscope_lost_",
            "pinscope_coverage_",
            "pinscope_unmeasured_",
            "pinscope_measurable_",
            "pinscope_books_",
            "pinscope_degraded_",
            "pinscope_walk",
        ],
    ),
    (
        "Health and questions",
        &[
            "pinscope_question_",
            "pinscope_health",
            "pinscope_attached_",
            "pinscope_probe_",
            "pinscope_info",
            "pinscope_build_",
        ],
    ),
    ("pinscope's own process and programs", &["pinscope_program_", "process_"]),
    ("Push by OTLP", &["pinscope_otlp_"]),
    ("Registrations and buffers", &["pinscope_"]),
];

/// The text of metrics.md: every metric by topic, with type, unit, labels, meaning and source; some queries; the buckets.
pub fn metrics_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    // The topic that takes what no other takes is what most readers look for.
    let topics = TOPICS.iter().rev().take(1).chain(TOPICS.iter().take(TOPICS.len() - 1));
    for (topic, _) in topics {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {topic}\n\n");
        let of_topic = METRICS.iter().filter(|metric| topic_of(metric) == *topic);
        text.extend(of_topic.map(item));
    }
    text.push_str(QUERIES);
    text.push_str("\n## Buckets\n\nThe bounds (`le`) of each histogram.\n\n");
    for metric in METRICS {
        if let Type::Histogram(bounds) = metric.kind {
            text.push_str(&buckets(metric, bounds));
        }
    }
    text
}

fn topic_of(metric: &Metric) -> &'static str {
    let of = |(_, beginnings): &&(&str, &[&str])| beginnings.iter().any(|beginning| metric.name.starts_with(beginning));
    // The last topic takes all that are pinscope's.
    TOPICS.iter().find(of).map_or("", |(topic, _)| topic)
}

fn item(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("; by {}", labels.join(", ")) };
    let Metric { name, kind, help, source, .. } = metric;
    let unit = if metric.unit() == "1" { String::new() } else { format!(", {}", metric.unit()) };
    paragraph(&format!("- `{name}` ({}{unit}{labels}): {help} *Source: {source}.*", kind.name()))
}

fn buckets(metric: &Metric, bounds: Bounds) -> String {
    let mut text = format!("- `{}`:", metric.name);
    for bound in bounds.values() {
        // Writing to a string does not fail.
        let _ = write!(text, " {}", bounds.scale(bound));
    }
    paragraph(&text)
}

/// A list item in lines of at most 120 columns.
fn paragraph(text: &str) -> String {
    wrapped(text, WIDTH).join("\n  ") + "\n"
}

impl Metric {
    /// The unit, as the name has it: seconds, bytes, ratio; else it is a count.
    pub fn unit(&self) -> &'static str {
        let words: Vec<_> = self.name.split('_').collect();
        let units = ["seconds", "bytes", "ratio"];
        units.into_iter().find(|unit| words.contains(unit)).unwrap_or("1")
    }
}
