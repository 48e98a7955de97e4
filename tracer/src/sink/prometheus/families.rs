//! The metrics as the `prometheus` crate's families, for all but the text format.

use prometheus::proto;

use super::{Bounds, Histogram, Metric, Sample, Scrape, Service, Type, Value};
use crate::aggregate::Snapshot;

/// The metrics of a snapshot, sorted by name. A metric that is not known is absent.
pub fn families(snapshot: &Snapshot, service: &Service) -> Vec<proto::MetricFamily> {
    Scrape::new(snapshot, service).metrics().map(|(metric, samples)| family(metric, samples)).collect()
}

fn family(metric: &Metric, samples: Vec<Sample<'_>>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Type::Counter => proto::MetricType::COUNTER,
        Type::Gauge => proto::MetricType::GAUGE,
        Type::Histogram(_) => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(samples.into_iter().map(|sample| proto_sample(metric, sample)).collect());
    family
}

fn proto_sample(metric: &Metric, sample: Sample<'_>) -> proto::Metric {
    let labels = metric.labels.iter().zip(sample.labels).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.into_owned());
        pair
    });
    let mut result = proto::Metric::from_label(labels.collect());
    match (metric.kind, sample.value) {
        (Type::Histogram(bounds), value) => {
            if let Some(shown) = Histogram::of(bounds, &value) {
                result.set_histogram(histogram(bounds, &shown));
            }
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
        (_, Value::Distribution(_) | Value::Counts(..)) => {}
    }
    result
}

fn histogram(bounds: Bounds, of: &Histogram) -> proto::Histogram {
    let buckets = bounds.shown().into_iter().zip(&of.cumulative).map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count);
    histogram.set_sample_sum(of.sum);
    histogram
}
