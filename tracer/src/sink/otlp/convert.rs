//! From the metrics' families to the messages of OTLP. Pure: no clock, no socket.
//!
//! The kernel has aggregated already, so the instruments of an OpenTelemetry SDK, which take single measurements, have
//! nothing to do here. What is sent are the very samples that `/metrics` shows.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
};
use prometheus::proto::{self, MetricType};

use crate::{human, sink::prometheus::METRICS};

/// The time that the points of a request are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// When the probes were attached: where every count began.
    pub start: SystemTime,
    /// When the figures were read.
    pub end: SystemTime,
}

/// The request that says what `families` say, as cumulative sums, gauges and histograms with explicit bounds.
pub fn request(
    families: &[proto::MetricFamily],
    attributes: &[(String, String)],
    version: &str,
    period: Period,
) -> ExportMetricsServiceRequest {
    let resource = Resource {
        attributes: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "pinscope".to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = ScopeMetrics {
        scope: Some(scope),
        metrics: families.iter().filter_map(|family| metric(family, period)).collect(),
        ..ScopeMetrics::default()
    };
    let resource_metrics =
        ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope_metrics], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

/// What the figures are of, by the semantic conventions. Later ones take the place of earlier ones with the same name.
pub fn attributes(version: &str, kernel: &str, host: &str, more: &[(String, String)]) -> Vec<(String, String)> {
    let own = [
        ("service.name", "pinscope"),
        ("service.version", version),
        // One daemon a host; without it the series of two hosts could not be told apart.
        ("service.instance.id", host),
        ("host.name", host),
        ("os.type", "linux"),
        ("os.version", kernel),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (name, value) in own.chain(more.iter().cloned()) {
        match attributes.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => attributes.push((name, value)),
        }
    }
    attributes
}

/// None for a type that the table does not have.
fn metric(family: &proto::MetricFamily, period: Period) -> Option<Metric> {
    let samples = family.get_metric();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: samples
                .iter()
                .map(|sample| number(sample, sample.get_counter().get_value(), period))
                .collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => metric::Data::Gauge(Gauge {
            data_points: samples.iter().map(|sample| number(sample, sample.get_gauge().get_value(), period)).collect(),
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: samples.iter().map(|sample| histogram(sample, period)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    Some(Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        unit: unit(family.name()).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// The unit by UCUM. Counts have none: a receiver that makes Prometheus' names takes a gauge in `1` for a ratio.
fn unit(name: &str) -> &'static str {
    let metric = METRICS.iter().find(|metric| metric.name == name);
    match metric.map_or("", |metric| metric.unit()) {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        _ => "",
    }
}

fn number(sample: &proto::Metric, value: f64, period: Period) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels(sample),
        start_time_unix_nano: nanoseconds(period.start),
        time_unix_nano: nanoseconds(period.end),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Bounds of both formats are inclusive upper ends. Prometheus' buckets hold all that is at most their bound, OTLP's what
/// is above the bound before, and the last one what is above all.
fn histogram(sample: &proto::Metric, period: Period) -> HistogramDataPoint {
    let histogram = sample.get_histogram();
    let bounded = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let (mut explicit_bounds, mut bucket_counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in bounded {
        explicit_bounds.push(bucket.upper_bound());
        bucket_counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    bucket_counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: labels(sample),
        start_time_unix_nano: nanoseconds(period.start),
        time_unix_nano: nanoseconds(period.end),
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn labels(sample: &proto::Metric) -> Vec<KeyValue> {
    // As the text format has them.
    let seen = |value: &str| value.split('\n').map(human::seen).collect::<Vec<_>>().join("\n");
    sample.get_label().iter().map(|label| attribute(label.name(), &seen(label.value()))).collect()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

/// Since 1970; a clock before it is 0, which OTLP takes for unknown.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
