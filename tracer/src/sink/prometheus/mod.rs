//! Metrics for Prometheus, made from a snapshot when they are scraped. [`METRICS`] is the one list of them.

mod calls;
mod detail;
mod families;
mod markdown;
mod otlp;
mod questions;
mod self_metrics;
mod table;
mod text;
mod workloads;

use std::borrow::Cow;

use smallvec::SmallVec;
use tracer_ebpf::workload;

use crate::{
    aggregate::{Distribution, Snapshot},
    answer::{Answer, answers},
    figure::Figure,
    sink::service::Service,
};

pub use families::families;
pub use markdown::metrics_markdown;
pub use table::METRICS;
pub use text::{CONTENT_TYPE, encode};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Counts since the probes were attached; never goes back.
    Counter,
    /// A state.
    Gauge,
    /// Counts at most each of the bounds. Every bound ends a bucket of the kernel's histogram, so they are exact.
    Histogram(Bounds),
}

impl Type {
    /// The name in the exposition format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The bounds of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// Nanoseconds, shown in seconds: 2^k - 1 ns for k from 10 (1 µs) to 33 (8.6 s).
    Time,
    /// 0 to 4 and 8, then 2^k - 1 for k up to 16.
    Vmas,
    /// 0 to 4 and 8, then 2^k - 1 for k up to 14, the most buffers of a ring.
    Buffers,
    /// Nanoseconds, shown in seconds: 2^k - 1 ns for even k from 20 (1 ms) to 46 (19.5 h).
    Age,
    /// 0 to 4 and 8, then 2^k - 1 for k up to 20.
    Ordinal,
    /// 2^k - 1 bytes for even k from 12 (4 KiB) to 40 (1 TiB).
    Bytes,
    /// Nanoseconds, shown in seconds, in few buckets: one workload's.
    WorkloadTime,
    /// VMAs, in few buckets likewise.
    WorkloadVmas,
}

impl Bounds {
    /// The bounds in the kernel's unit, inclusive, each the upper end of a bucket.
    pub fn values(self) -> Vec<u64> {
        let ends = |bits: &mut dyn Iterator<Item = u32>| bits.map(|bit| (1 << bit) - 1).collect::<Vec<u64>>();
        let small = |last: u32| [vec![0, 1, 2, 3, 4, 8], ends(&mut (4..=last))].concat();
        match self {
            Self::Time => ends(&mut (10..=33)),
            Self::Vmas => small(16),
            Self::Buffers => small(14),
            Self::Age => ends(&mut (20..=46).step_by(2)),
            Self::Ordinal => small(20),
            Self::Bytes => ends(&mut (12..=40).step_by(2)),
            Self::WorkloadTime => workload::DURATION_BOUNDS.to_vec(),
            Self::WorkloadVmas => workload::VMA_BOUNDS.to_vec(),
        }
    }

    /// The bounds in the metric's unit, as `le` shows them.
    pub fn shown(self) -> Vec<f64> {
        self.values().into_iter().map(|bound| self.scale(bound)).collect()
    }

    /// What a value of the kernel's unit is in the metric's.
    fn scale(self, value: u64) -> f64 {
        match self {
            Self::Time | Self::Age | Self::WorkloadTime => value as f64 / 1e9,
            Self::Vmas | Self::Buffers | Self::Ordinal | Self::Bytes | Self::WorkloadVmas => value as f64,
        }
    }
}

/// One metric: all that tracer/doc/metrics.md says of it, and where its samples come from.
pub struct Metric {
    /// Name, by Prometheus' conventions.
    pub name: &'static str,
    /// Type.
    pub kind: Type,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
    /// The figure that it tells: where that is not to be had, it is absent. `None` of what pinscope says of itself.
    pub figure: Option<Figure>,
    /// The hooks or maps it comes from.
    pub source: &'static str,
    samples: for<'a> fn(&Scrape<'a>) -> Vec<Sample<'a>>,
}

/// What is at hand when Prometheus asks.
struct Scrape<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    answers: Vec<Answer>,
}

struct Sample<'a> {
    /// Most have one or two: with those there is nothing to allocate.
    labels: SmallVec<[Cow<'a, str>; 2]>,
    value: Value<'a>,
}

enum Value<'a> {
    Number(f64),
    Distribution(&'a Distribution),
    /// Counts under each of the metric's bounds, then those above; and the sum of all values.
    Counts(&'a [u64], u64),
}

impl<'a> Sample<'a> {
    fn number(labels: &[&'a str], value: f64) -> Self {
        Self { labels: labels.iter().map(|label| Cow::Borrowed(*label)).collect(), value: Value::Number(value) }
    }

    fn count(labels: &[&'a str], value: u64) -> Self {
        Self::number(labels, value as f64)
    }

    fn distribution(labels: &[&'a str], distribution: &'a Distribution) -> Self {
        Self { value: Value::Distribution(distribution), ..Self::number(labels, 0.0) }
    }
}

impl<'a> Scrape<'a> {
    fn new(snapshot: &'a Snapshot, service: &'a Service) -> Self {
        Self { snapshot, service, answers: answers(snapshot, &service.context) }
    }

    /// The metrics that have samples, sorted by name. One that is not known is absent.
    fn metrics(&self) -> impl Iterator<Item = (&'static Metric, Vec<Sample<'a>>)> {
        let mut metrics: Vec<_> = METRICS.iter().collect();
        metrics.sort_by_key(|metric| metric.name);
        let is_told = |metric: &&Metric| metric.figure.is_none_or(|figure| self.snapshot.figures.has(figure));
        let told = metrics.into_iter().filter(is_told);
        told.map(|metric| (metric, (metric.samples)(self))).filter(|(_, samples)| !samples.is_empty())
    }
}

/// What a sample of a histogram shows.
struct Histogram {
    /// Values at most each of the bounds, in their order.
    cumulative: Vec<u64>,
    count: u64,
    /// In the metric's unit.
    sum: f64,
}

impl Histogram {
    /// `None` of a number. The table pairs types with samples; a test goes through all of it.
    fn of(bounds: Bounds, value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Number(_) => None,
            Value::Distribution(distribution) => Some(Self {
                cumulative: bounds.values().into_iter().map(|bound| distribution.count_at_most(bound)).collect(),
                count: distribution.count(),
                sum: bounds.scale(distribution.sum()),
            }),
            Value::Counts(counts, sum) => {
                let mut total = 0_u64;
                let mut cumulative = Vec::with_capacity(counts.len());
                for count in *counts {
                    total = total.saturating_add(*count);
                    cumulative.push(total);
                }
                // The last is of those above all bounds.
                cumulative.pop();
                Some(Self { cumulative, count: total, sum: bounds.scale(*sum) })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
