//! The text format 0.0.4, written without a value of its own for every label and number: with 200 workloads there are some
//! 7,000 samples at each scrape, and the `prometheus` crate's encoder and families take three times the instructions for
//! the same bytes. A test holds the two against each other.

use std::fmt::Write as _;

use super::{Histogram, Metric, Sample, Scrape, Service, Type, Value};
use crate::{aggregate::Snapshot, human::is_unseen};

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bytes that may have to be escaped, or begin a character that shows nothing of itself.
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut control = 0;
    while control < b' ' as usize {
        escaped[control] = true;
        control += 1;
    }
    let mut others: &[u8] = b"\\\"\x7f\xc2\xd8\xe2\xef";
    while let [first, rest @ ..] = others {
        escaped[*first as usize] = true;
        others = rest;
    }
    escaped
};

/// Integers that a float holds exactly.
const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

/// The metrics of a snapshot, sorted by name. A metric that is not known is absent.
pub fn encode(snapshot: &Snapshot, service: &Service) -> String {
    let mut text = String::new();
    for (metric, samples) in Scrape::new(snapshot, service).metrics() {
        family(&mut text, metric, &samples);
    }
    text
}

fn family(text: &mut String, metric: &Metric, samples: &[Sample<'_>]) {
    let Metric { name, kind, .. } = metric;
    text.extend(["# HELP ", name, " "]);
    escape(text, metric.help, false);
    text.extend(["\n# TYPE ", name, " ", kind.name(), "\n"]);
    let bounds = match kind {
        Type::Histogram(bounds) => bucket_ends(bounds.shown().iter()),
        Type::Counter | Type::Gauge => Vec::new(),
    };
    let (mut labels, mut series) = (String::new(), String::new());
    for sample in samples {
        labels.clear();
        for (name, value) in metric.labels.iter().zip(&sample.labels) {
            labels.extend([if labels.is_empty() { "" } else { "," }, name, "=\""]);
            escape(&mut labels, value, true);
            labels.push('"');
        }
        match (kind, &sample.value) {
            (Type::Counter | Type::Gauge, Value::Number(value)) => line(text, [name, ""], &labels, *value),
            (Type::Histogram(of), value) => {
                if let Some(shown) = Histogram::of(*of, value) {
                    series.clear();
                    let comma = if labels.is_empty() { "" } else { "," };
                    series.extend([*name, "_bucket{", &labels, comma, "le=\""]);
                    buckets(text, &series, &bounds, &shown);
                    line(text, [name, "_sum"], &labels, shown.sum);
                    line(text, [name, "_count"], &labels, shown.count as f64);
                }
            }
            // The table pairs types with samples; a test goes through all of it.
            (Type::Counter | Type::Gauge, Value::Distribution(_) | Value::Counts(..)) => {}
        }
    }
}

/// What ends the names of a histogram's buckets: each bound, and a blank before the count.
fn bucket_ends<'a>(bounds: impl Iterator<Item = &'a f64>) -> Vec<String> {
    bounds.map(f64::to_string).chain(["+Inf".to_owned()]).map(|bound| bound + "\"} ").collect()
}

/// The buckets, whose names begin with `series`.
fn buckets(text: &mut String, series: &str, ends: &[String], shown: &Histogram) {
    for (end, count) in ends.iter().zip(shown.cumulative.iter().chain([&shown.count])) {
        text.push_str(series);
        text.push_str(end);
        number(text, *count as f64);
    }
}

fn line(text: &mut String, name: [&str; 2], labels: &str, value: f64) {
    text.extend(name);
    if labels.is_empty() {
        text.push(' ');
    } else {
        text.extend(["{", labels, "} "]);
    }
    number(text, value);
}

/// The number that ends a line.
fn number(text: &mut String, value: f64) {
    if value.fract() == 0.0 && (0.0..EXACT).contains(&value) {
        // The same digits, found faster.
        text.push_str(itoa::Buffer::new().format(value as u64));
        text.push('\n');
    } else {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{value}");
    }
}

/// A label is quoted, a help text is not.
fn escape(text: &mut String, value: &str, quoted: bool) {
    if !value.bytes().any(|byte| ESCAPED[usize::from(byte)]) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\\' => text.push_str("\\\\"),
            '"' if quoted => text.push_str("\\\""),
            _ if is_unseen(character) => text.push(char::REPLACEMENT_CHARACTER),
            _ => text.push(character),
        }
    }
}
