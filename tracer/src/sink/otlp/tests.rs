use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    common::v1::{KeyValue, any_value},
    metrics::v1::{AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point},
};
use proptest::prelude::*;

mod real;

use super::*;
use crate::{
    aggregate::{
        Snapshot, fold,
        tests::{any_capabilities, any_sample},
    },
    answer::fixture::a_snapshot,
    figure::Figure,
    human::seen,
    sink::prometheus::{
        METRICS, encode,
        tests::{a_degraded_snapshot, parse, service},
    },
};

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn converted(snapshot: &Snapshot) -> ExportMetricsServiceRequest {
    let period = Period { start: START + Duration::from_secs(1), end: START + Duration::from_secs(61) };
    let attributes = attributes("0.1.0", "6.12.107", "host-1", &[("service.instance.id".to_owned(), "a".to_owned())]);
    request(&prometheus::families(snapshot, &service()), &attributes, "0.1.0", period)
}

fn metrics(request: &ExportMetricsServiceRequest) -> &[Metric] {
    &request.resource_metrics[0].scope_metrics[0].metrics
}

fn text(value: &KeyValue) -> &str {
    match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The name of a sample in the text format.
fn name(metric: &str, attributes: &[KeyValue], le: Option<f64>) -> String {
    // The text format shows a replacement for what shows nothing of itself.
    let lines = |text: &str| text.split('\n').map(seen).collect::<Vec<_>>().join(r"\n");
    let escaped = |text: &str| lines(&text.replace('\\', r"\\").replace('"', "\\\""));
    let labels = attributes.iter().map(|label| format!("{}=\"{}\"", label.key, escaped(text(label))));
    let le = le.map(|le| if le.is_infinite() { "le=\"+Inf\"".to_owned() } else { format!("le=\"{le}\"") });
    let labels: Vec<_> = labels.chain(le).collect();
    if labels.is_empty() { metric.to_owned() } else { format!("{metric}{{{}}}", labels.join(",")) }
}

/// What a receiver sees of a request, as the samples of the text format.
fn samples(request: &ExportMetricsServiceRequest) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for metric in metrics(request) {
        match metric.data.as_ref().unwrap() {
            metric::Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
                samples.extend(sum.data_points.iter().map(|point| number(&metric.name, point)));
            }
            metric::Data::Gauge(gauge) => {
                samples.extend(gauge.data_points.iter().map(|point| number(&metric.name, point)));
            }
            metric::Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Cumulative as i32);
                for point in &histogram.data_points {
                    samples.extend(buckets(&metric.name, point));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    samples
}

fn number(metric: &str, point: &NumberDataPoint) -> (String, f64) {
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1_000_000_000, 61_000_000_000));
    let Some(number_data_point::Value::AsDouble(value)) = point.value else { panic!("{point:?}") };
    (name(metric, &point.attributes, None), value)
}

fn buckets(metric: &str, point: &HistogramDataPoint) -> Vec<(String, f64)> {
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1_000_000_000, 61_000_000_000));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
    let mut below = 0;
    let mut samples: Vec<_> = bounds
        .zip(&point.bucket_counts)
        .map(|(le, count)| {
            below += count;
            (name(&format!("{metric}_bucket"), &point.attributes, Some(le)), below as f64)
        })
        .collect();
    samples.push((name(&format!("{metric}_count"), &point.attributes, None), point.count as f64));
    samples.push((name(&format!("{metric}_sum"), &point.attributes, None), point.sum.unwrap()));
    samples
}

#[test]
fn every_sample_of_the_text_format_is_in_the_request_and_no_other() {
    let snapshot = a_degraded_snapshot();
    let request = converted(&snapshot);
    let expected = parse(&encode(&snapshot, &service()));
    assert!(expected.len() > 500, "a poor fixture: {} samples", expected.len());
    assert_eq!(samples(&request), expected);
    // All that the table has, with its help and its unit.
    assert_eq!(metrics(&request).len(), METRICS.len());
    for metric in metrics(&request) {
        let listed = METRICS.iter().find(|listed| listed.name == metric.name).unwrap();
        assert_eq!(metric.description, listed.help);
        let unit = BTreeMap::from([("seconds", "s"), ("bytes", "By"), ("ratio", "1"), ("1", "")])[listed.unit()];
        assert_eq!(metric.unit, unit, "{}", metric.name);
    }
}

#[test]
fn a_label_hides_nothing() {
    let mut snapshot = a_degraded_snapshot();
    snapshot.figures.lose(&[Figure::WorkloadsV1], "a\u{202e}b\u{2028}\r: \u{1b}[2J\nx");
    let samples = samples(&converted(&snapshot));
    assert_eq!(samples, parse(&encode(&snapshot, &service())));
    assert!(samples.keys().all(|name| !name.contains(['\u{202e}', '\u{2028}', '\r', '\u{1b}'])));
}

#[test]
fn the_resource_says_what_the_figures_are_of() {
    let request = converted(&a_snapshot());
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let attributes: Vec<_> = resource.attributes.iter().map(|value| (value.key.as_str(), text(value))).collect();
    assert_eq!(
        attributes,
        [
            ("service.name", "pinscope"),
            ("service.version", "0.1.0"),
            ("service.instance.id", "a"),
            ("host.name", "host-1"),
            ("os.type", "linux"),
            ("os.version", "6.12.107"),
        ]
    );
    let scope = request.resource_metrics[0].scope_metrics[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("pinscope", "0.1.0"));
}

proptest! {
    // A snapshot has thousands of samples, and each is written, parsed and compared.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_was_counted_is_the_same_in_both_formats(sample in any_sample(), capabilities in any_capabilities()) {
        let snapshot = fold(&sample, &capabilities);
        let request = converted(&snapshot);
        prop_assert_eq!(samples(&request), parse(&encode(&snapshot, &service())));
        // And over the wire.
        let decoded = ExportMetricsServiceRequest::decode(request.encode_to_vec().as_slice());
        prop_assert_eq!(decoded.unwrap(), request);
    }
}

/// A receiver on a real socket: answers each request with the next of its answers, the last one again and again.
struct Receiver {
    address: SocketAddr,
    requests: mpsc::Receiver<(String, ExportMetricsServiceRequest)>,
}

fn receiver(answers: Vec<Vec<u8>>) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sent, requests) = mpsc::channel();
    // It ends with the test's process.
    thread::spawn(move || {
        for number in 0.. {
            let (mut stream, _) = listener.accept().unwrap();
            let request = take_request(&mut stream);
            if sent.send(request).is_err() {
                return;
            }
            match answers.get(number).or(answers.last()) {
                // Keeps quiet, with the connection open.
                Some(answer) if answer.is_empty() => std::mem::forget(stream),
                // Who has given up waiting does not read it.
                Some(answer) => drop(stream.write_all(answer)),
                None => {}
            }
        }
    });
    Receiver { address, requests }
}

fn take_request(stream: &mut TcpStream) -> (String, ExportMetricsServiceRequest) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, ExportMetricsServiceRequest::decode(body.as_slice()).unwrap())
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn options(address: SocketAddr, interval: Duration) -> Options {
    Options {
        endpoint: format!("http://{address}/otlp").parse().unwrap(),
        interval,
        headers: vec!["X-Scope-OrgID=tenant".parse().unwrap()],
        attributes: vec![],
    }
}

/// Exports to an address until `enough`, then ends.
fn export(options: Options, read: Read, enough: impl Fn(&Counts) -> bool) -> Counts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let counts = Counts::default();
        let service = Service { exports: Some(counts.clone()), ..service() };
        let exporter = Exporter::start(options, read, service, START);
        let deadline = Instant::now() + Duration::from_mins(1);
        while !enough(&counts) {
            assert!(Instant::now() < deadline, "{counts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        exporter.end().await;
        counts
    })
}

fn reads() -> Read {
    Arc::new(|| Ok(a_snapshot()))
}

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_request_arrives_and_another_at_the_end() {
    let receiver = receiver(vec![answer("200 OK", b"")]);
    let counts = export(options(receiver.address, LONG), reads(), |counts| counts.exports(Outcome::Accepted) == 1);
    assert_eq!(counts.exports(Outcome::Accepted), 2);
    let (head, first) = receiver.requests.recv().unwrap();
    assert!(head.starts_with("post /otlp/v1/metrics http/1.1\r\n"), "{head}");
    for header in ["content-type: application/x-protobuf", "x-scope-orgid: tenant", "user-agent: pinscope/"] {
        assert!(head.contains(&format!("\r\n{header}")), "{head}");
    }
    assert!(head.contains(&format!("\r\nhost: {}\r\n", receiver.address)), "{head}");
    let registrations = metrics(&first).iter().find(|metric| metric.name == "pinscope_registrations_total").unwrap();
    let Some(metric::Data::Sum(sum)) = &registrations.data else { panic!("{registrations:?}") };
    assert!(!sum.data_points.is_empty());
    // The last one knows of the first.
    let (_, last) = receiver.requests.recv().unwrap();
    let exports = metrics(&last).iter().find(|metric| metric.name == "pinscope_otlp_exports_total").unwrap();
    let Some(metric::Data::Sum(sum)) = &exports.data else { panic!("{exports:?}") };
    let accepted = sum.data_points.iter().find(|point| text(&point.attributes[0]) == "accepted").unwrap();
    assert_eq!(accepted.value, Some(number_data_point::Value::AsDouble(1.0)));
}

#[test]
fn a_busy_receiver_is_asked_again_when_it_wants_to_be() {
    let busy = answer("503 Service Unavailable\r\nretry-after: 2", b"busy");
    let receiver = receiver(vec![busy, answer("200 OK", b"")]);
    let started = std::time::Instant::now();
    let counts = export(options(receiver.address, LONG), reads(), |counts| counts.exports(Outcome::Accepted) == 1);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!((counts.retries(), counts.exports(Outcome::Abandoned)), (1, 0));
    let (_, first) = receiver.requests.recv().unwrap();
    let (_, second) = receiver.requests.recv().unwrap();
    assert_eq!(first, second, "a retry is the same request");
}

#[test]
fn a_receiver_that_wants_to_be_left_alone_is_until_the_end() {
    let receiver = receiver(vec![answer("429 Too Many Requests\r\nretry-after: 3600", b"")]);
    let started = std::time::Instant::now();
    let (interval, several) = (Duration::from_secs(2), Duration::from_secs(7));
    let counts = export(options(receiver.address, interval), reads(), |counts| {
        counts.exports(Outcome::Abandoned) == 1 && started.elapsed() > several
    });
    // The export of the end was not sent either.
    assert_eq!(counts.exports(Outcome::Abandoned), 2);
    assert_eq!(receiver.requests.try_iter().count(), 1);
}

#[test]
fn a_refusal_is_final() {
    let receiver = receiver(vec![answer("400 Bad Request", b"out of order")]);
    let counts = export(options(receiver.address, LONG), reads(), |counts| counts.exports(Outcome::Refused) == 1);
    assert_eq!((counts.retries(), counts.exports(Outcome::Refused)), (0, 2));
}

#[test]
fn points_left_out_are_counted() {
    let partial = ExportMetricsPartialSuccess { rejected_data_points: 7, error_message: "too old".to_owned() };
    let body = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let receiver = receiver(vec![answer("200 OK", &body)]);
    let counts = export(options(receiver.address, LONG), reads(), |counts| counts.exports(Outcome::Partial) == 1);
    assert_eq!((counts.rejected_points(), counts.exports(Outcome::Partial)), (14, 2));
}

#[test]
fn nobody_there_and_nobody_who_answers_are_given_up_in_time() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hanging = receiver(vec![Vec::new()]);
    for address in [gone, hanging.address] {
        let started = std::time::Instant::now();
        let counts = export(options(address, SHORT), reads(), |counts| counts.exports(Outcome::Abandoned) == 3);
        assert!(counts.exports(Outcome::Abandoned) >= 4);
        // Three intervals and a last export of two seconds at most.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn an_answer_that_is_no_http_is_tried_again() {
    let receiver = receiver(vec![b"220 mail.example ESMTP\r\n".to_vec(), answer("200 OK", b"")]);
    let counts = export(options(receiver.address, LONG), reads(), |counts| counts.exports(Outcome::Accepted) == 1);
    assert_eq!(counts.retries(), 1);
}

#[test]
fn figures_that_cannot_be_read_are_not_sent() {
    let receiver = receiver(vec![answer("200 OK", b"")]);
    let read: Read = Arc::new(|| Err(anyhow::anyhow!("EPERM").context("cannot read the map TOTALS")));
    let counts = export(options(receiver.address, SHORT), read, |counts| counts.exports(Outcome::Unread) >= 2);
    assert_eq!(counts.exports(Outcome::Accepted), 0);
    assert_eq!(receiver.requests.try_iter().count(), 0);
    // Nor does a panic end the exports.
    let read: Read = Arc::new(|| panic!("broken"));
    export(options(receiver.address, SHORT), read, |counts| counts.exports(Outcome::Unread) >= 2);
}
