//! Metrics for Prometheus, made from a snapshot when they are scraped. [`METRICS`] is the one list of them.

mod detail;
mod markdown;
mod questions;
mod table;

use anyhow::Context as _;
use prometheus::{TextEncoder, proto};

use crate::{
    aggregate::{Distribution, Snapshot},
    answer::{Answer, Context, answers},
};

pub use markdown::metrics_markdown;
pub use table::METRICS;

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a snapshot alone does not say about the service that serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Of pinscope.
    pub version: String,
    /// The running kernel's release.
    pub kernel: String,
    /// How the probes are attached: `fentry` or `kprobe`.
    pub mode: String,
    /// The probes of the plan, attached or not.
    pub probes: Vec<Probe>,
    /// How the figures are made.
    pub context: Context,
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Name of the program in the eBPF object.
    pub program: String,
    /// The kernel's function, or the tracepoint.
    pub function: String,
    /// `fentry`, `fexit`, `kprobe`, `kretprobe` or `raw_tracepoint`.
    pub kind: String,
    /// Whether it is attached.
    pub attached: bool,
}

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
        }
    }

    /// What a value of the kernel's unit is in the metric's.
    fn scale(self, value: u64) -> f64 {
        match self {
            Self::Time | Self::Age => value as f64 / 1e9,
            Self::Vmas | Self::Buffers | Self::Ordinal | Self::Bytes => value as f64,
        }
    }
}

/// One metric: all that METRICS.md says of it, and where its samples come from.
pub struct Metric {
    /// Name, by Prometheus' conventions.
    pub name: &'static str,
    /// Type.
    pub kind: Type,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
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
    labels: Vec<String>,
    value: Value<'a>,
}

enum Value<'a> {
    Number(f64),
    Distribution(&'a Distribution),
}

impl<'a> Sample<'a> {
    fn number(labels: &[&str], value: f64) -> Self {
        Self { labels: labels.iter().map(|label| (*label).to_owned()).collect(), value: Value::Number(value) }
    }

    fn count(labels: &[&str], value: u64) -> Self {
        Self::number(labels, value as f64)
    }

    fn distribution(labels: &[&str], distribution: &'a Distribution) -> Self {
        Self { value: Value::Distribution(distribution), ..Self::number(labels, 0.0) }
    }
}

/// The metrics of a snapshot, sorted by name. A metric that is not known is absent.
pub fn families(snapshot: &Snapshot, service: &Service) -> Vec<proto::MetricFamily> {
    let scrape = Scrape { snapshot, service, answers: answers(snapshot, &service.context) };
    let mut families: Vec<_> = METRICS.iter().filter_map(|metric| family(metric, &scrape)).collect();
    families.sort_by(|a, b| a.name().cmp(b.name()));
    families
}

/// The metrics of a snapshot in the text format 0.0.4.
pub fn encode(snapshot: &Snapshot, service: &Service) -> anyhow::Result<String> {
    TextEncoder::new().encode_to_string(&families(snapshot, service)).context("cannot write the metrics as text")
}

fn family(metric: &Metric, scrape: &Scrape<'_>) -> Option<proto::MetricFamily> {
    let samples = (metric.samples)(scrape);
    if samples.is_empty() {
        return None;
    }
    let mut family = proto::MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Type::Counter => proto::MetricType::COUNTER,
        Type::Gauge => proto::MetricType::GAUGE,
        Type::Histogram(_) => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(samples.into_iter().map(|sample| proto_sample(metric, sample)).collect());
    Some(family)
}

fn proto_sample(metric: &Metric, sample: Sample<'_>) -> proto::Metric {
    let labels = metric.labels.iter().zip(sample.labels).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut result = proto::Metric::from_label(labels.collect());
    match (metric.kind, sample.value) {
        (Type::Histogram(bounds), Value::Distribution(distribution)) => {
            result.set_histogram(proto_histogram(bounds, distribution));
        }
        (Type::Counter, Value::Number(value)) => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            result.set_counter(counter);
        }
        (Type::Gauge, Value::Number(value)) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            result.set_gauge(gauge);
        }
        // The table pairs types with samples; a test goes through all of it.
        (Type::Histogram(_), Value::Number(_)) | (_, Value::Distribution(_)) => {}
    }
    result
}

fn proto_histogram(bounds: Bounds, distribution: &Distribution) -> proto::Histogram {
    let buckets = bounds.values().into_iter().map(|bound| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bounds.scale(bound));
        bucket.set_cumulative_count(distribution.count_at_most(bound));
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count());
    histogram.set_sample_sum(bounds.scale(distribution.sum()));
    histogram
}

#[cfg(test)]
mod tests;
