//! A real receiver, which is asked in PromQL for what it was sent: VictoriaMetrics. (Debian builds Prometheus without its
//! receiver of OTLP.)

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::*;

type Series = BTreeMap<BTreeMap<String, String>, f64>;

/// Killed when dropped, also by a failed test.
struct Receiving(Child);

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, folder: &Path, address: SocketAddr) -> Receiving {
    let child = Command::new(program)
        .arg(format!("-storageDataPath={}", folder.join("data").display()))
        .arg(format!("-httpListenAddr={address}"))
        // What Prometheus makes of the names as well: it shows whether ours survive it.
        .arg("-opentelemetry.usePrometheusNaming")
        .arg("-search.latencyOffset=0s")
        .stdin(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    Receiving(child)
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not in 30 s");
}

/// All series of the service as PromQL sees them now, without those that the receiver adds.
fn series(address: SocketAddr) -> Series {
    // {service_name="pinscope"}
    let body = get(address, "/api/v1/query?query=%7Bservice_name%3D%22pinscope%22%7D").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    result
        .iter()
        .map(|series| {
            let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).unwrap();
            assert_eq!((labels["service_name"].as_str(), labels["os_type"].as_str()), ("pinscope", "linux"));
            assert!(!labels["service_instance_id"].is_empty());
            (normal(labels), series["value"][1].as_str().unwrap().parse().unwrap())
        })
        .collect()
}

/// Bounds may be written in more than one way, and an empty label is none.
fn normal(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_the_resource =
        |name: &str| ["service_", "host_", "os_", "scope_"].iter().any(|prefix| name.starts_with(prefix));
    labels.retain(|name, value| !of_the_resource(name) && !value.is_empty());
    if let Some(le) = labels.get_mut("le") {
        *le = format!("{:e}", le.parse::<f64>().unwrap());
    }
    labels
}

/// The same of the text format. No label of the fixture has a comma or a quotation mark in it.
fn expected() -> Series {
    let samples = parse(&encode(&a_snapshot(), &service()));
    samples
        .into_iter()
        .map(|(name, value)| {
            let (name, labels) = name.split_once('{').unwrap_or((&name, "}"));
            let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
            let labels = pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
            (normal(labels.chain([("__name__".to_owned(), name.to_owned())]).collect()), value)
        })
        .collect()
}

#[test]
#[ignore = "needs Debian's victoria-metrics from 1.112 on: PINSCOPE_VICTORIA_METRICS=/path/to/the/program"]
fn a_real_receiver_has_what_the_text_format_says() {
    let program = std::env::var("PINSCOPE_VICTORIA_METRICS").expect("PINSCOPE_VICTORIA_METRICS is not set");
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _receiving = start(&program, folder.path(), address);
    wait_for("VictoriaMetrics", || get(address, "/health").is_ok_and(|body| body == "OK"));

    let mut options = options(address, LONG);
    options.endpoint = format!("http://{address}/opentelemetry").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut expected = expected();
    // One request only: the counts of the export itself are those before it.
    let counts = runtime.block_on(async {
        let service = Service { exports: Some(Counts::default()), ..service() };
        let counts = service.exports.clone().unwrap();
        let exporter = Exporter::start(options, reads(), service, SystemTime::now() - LONG);
        while counts.exports(Outcome::Accepted) == 0 {
            let log = || fs::read_to_string(folder.path().join("log")).unwrap();
            assert_eq!(counts.exports(Outcome::Refused), 0, "{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        exporter.task.abort();
        counts
    });
    assert_eq!((counts.exports(Outcome::Accepted), counts.retries()), (1, 0));
    let mut present = Series::new();
    // What is still missing then is shown below.
    for _ in 0..100 {
        get(address, "/internal/force_flush").unwrap();
        present = series(address);
        if present.len() >= expected.len() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    println!("{} series", present.len());
    for (labels, value) in present {
        let sent = expected.remove(&labels).unwrap_or_else(|| panic!("was not sent: {labels:?}"));
        // It keeps decimals, not the bits.
        assert!((sent - value).abs() <= 1e-12 * sent.abs(), "{labels:?}: {value} in place of {sent}");
    }
    assert!(expected.is_empty(), "missing: {expected:?}");
}
