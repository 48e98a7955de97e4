//! METRICS.md, made from the list of metrics so that it cannot fall behind it.

use std::fmt::Write as _;

use super::{Bounds, METRICS, Metric, Type};

const INTRODUCTION: &str = "\
# Metrics

Generated from the list in `tracer/src/sink/prometheus/table.rs`; do not edit.

- All counts begin when the probes are attached. A restart begins anew, as Prometheus' `rate()` expects.
- **What is not known is absent, never zero**: a metric whose hook this kernel does not offer is not there.
  `pinscope_degraded_reasons` says how many reasons there are, `pinscope doctor` which.
- Times leave out pinscope's own walks.
- `outcome` of calls: `ok` did all it was asked for, `partial` is an update that installed some of its buffers and stopped at
  one, `failed` returned an errno.
- `outcome` of buffers: `ok` was registered when its call returned, `failed` was not: refused, or pinned and let go again since
  another buffer of its call was refused. What those pins cost is in all times, faults and VMAs.
- Counts in a histogram's buckets are exact: every `le` is the inclusive end of a bucket that the kernel side keeps.

";

const QUERIES: &str = "
## Queries

```promql
# Share of registrations that touch a single VMA
(sum(rate(pinscope_registration_vmas_bucket{le=~\"1([.]0)?\"}[5m])) - sum(rate(pinscope_registration_vmas_bucket{le=~\"0([.]0)?\"}[5m])))
  / sum(rate(pinscope_registration_vmas_count[5m]))

# Share of the time that the pins take
sum(rate(pinscope_pin_duration_seconds_sum[5m]))
  / sum(rate(pinscope_registration_duration_seconds_sum{operation=~\"register|update\"}[5m]))

# Failures a second, by errno
sum by (operation, result) (rate(pinscope_registrations_total{result!=\"ok\"}[5m]))

# Sets of buffers a second that may have come in the place of others, on rings that are at work already
sum by (instance) (rate(pinscope_installations_total{requests=\"after\", kind=~\"table|replacement|update\"}[5m]))

# Buffers accepted here that another host of the job would refuse, since the probes were attached
sum by (job, instance, policy, errno, class, filesystem) (pinscope_policy_changes_total{change=\"refused\"} > 0)
  and on (job, policy) pinscope_kernel_policy

# Buffers refused here that a newer kernel accepts
sum by (policy, errno, class, filesystem) (pinscope_policy_changes_total{change=\"accepted\", policy=~\"since_.*\"})

# 99th percentile of a successful registration
histogram_quantile(0.99, sum by (le) (rate(pinscope_registration_duration_seconds_bucket{operation=\"register\", outcome=\"ok\"}[5m])))
```
";

/// The text of METRICS.md: every metric with type, unit, labels, meaning and source; the buckets; some queries.
pub fn metrics_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| metric | type | unit | labels | meaning | from |\n|---|---|---|---|---|---|\n");
    for metric in METRICS {
        text.push_str(&row(metric));
    }
    text.push_str("\n## Buckets\n\n");
    for metric in METRICS {
        if let Type::Histogram(bounds) = metric.kind {
            text.push_str(&buckets(metric, bounds));
        }
    }
    text.push_str(QUERIES);
    text
}

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let Metric { name, kind, help, source, .. } = metric;
    format!("| `{name}` | {} | {} | {} | {help} | {source} |\n", kind.name(), metric.unit(), labels.join(", "))
}

fn buckets(metric: &Metric, bounds: Bounds) -> String {
    let mut text = format!("- `{}`:", metric.name);
    for bound in bounds.values() {
        // Writing to a string does not fail.
        let _ = write!(text, " {}", bounds.scale(bound));
    }
    text.push('\n');
    text
}

impl Metric {
    /// The unit, as the name has it: seconds, bytes, ratio; else it is a count.
    pub fn unit(&self) -> &'static str {
        let words: Vec<_> = self.name.split('_').collect();
        let units = ["seconds", "bytes", "ratio"];
        units.into_iter().find(|unit| words.contains(unit)).unwrap_or("1")
    }
}
