use std::{
    io::Read as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::oneshot,
    time,
};

use super::*;
use crate::{
    aggregate::{Snapshot, fold, tests::a_sample},
    decode::Capabilities,
    sink::service::Probe,
};

/// Far above what a test takes.
const LONG: Duration = Duration::from_secs(20);

fn snapshot() -> Snapshot {
    fold(&a_sample(), &Capabilities::all())
}

fn good() -> Read {
    Arc::new(|| Ok(snapshot()))
}

fn service() -> Service {
    Service { probes: vec![Probe { attached: true, ..Probe::default() }], ..Service::default() }
}

fn content(read: Read, service: Service) -> Content {
    Content { read, service, hosts: Hosts::default() }
}

/// Runs `test` against a service on a port of its own, and then stops it.
fn with_service<T, F: Future<Output = T>>(
    limits: Limits,
    read: Read,
    service: Service,
    test: impl FnOnce(String) -> F,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let server = tokio::spawn(serve_within(limits, vec![listener], content(read, service), stopped));
        let outcome = time::timeout(LONG, test(address)).await.expect("the test hangs");
        stop.send(()).unwrap();
        time::timeout(LONG, server).await.expect("the service does not stop").unwrap();
        outcome
    });
    runtime.shutdown_background();
    outcome
}

/// One request on a connection of its own; all of the answer.
async fn request(address: &str, head: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn get(address: &str, path: &str) -> String {
    String::from_utf8(request(address, &format!("GET {path} HTTP/1.1")).await).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn metrics_health_and_a_page_are_served() {
    with_service(Limits::default(), good(), service(), async |address| {
        let metrics = get(&address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\npinscope_vma_lookups_total 12\n"));
        assert_eq!(body(&get(&address, "/-/healthy").await), "healthy\n");
        assert_eq!(body(&get(&address, "/-/ready").await), "ready\n");
        let page = get(&address, "/?x=1&refresh=7").await;
        assert!(page.contains("text/html") && page.contains("content-security-policy: default-src 'none'"), "{page}");
        assert!(page.contains("content=\"7\"") && page.contains("href=\"/metrics\""));
    });
}

#[test]
fn what_is_not_there_or_not_to_be_done_is_said_in_a_line() {
    with_service(Limits::default(), good(), service(), async |address| {
        let none = get(&address, "/none").await;
        assert!(status(&none) == "404" && body(&none).lines().count() == 1, "{none}");
        for method in ["POST", "DELETE", "PUT", "BREW"] {
            let answer = request(&address, &format!("{method} /metrics HTTP/1.1\r\nContent-Length: 0")).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(status(&answer) == "405" && answer.contains("allow: GET,HEAD"), "{answer}");
        }
        let head = String::from_utf8(request(&address, "HEAD /metrics HTTP/1.1").await).unwrap();
        assert!(status(&head) == "200" && head.contains("version=0.0.4") && body(&head).is_empty(), "{head}");
    });
}

/// As Prometheus 2.53 and 3.5 ask, and with what no one serves.
#[test]
fn any_scraper_gets_the_text_format() {
    with_service(Limits::default(), good(), service(), async |address| {
        for accept in [
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf",
        ] {
            let answer = request(&address, &format!("GET /metrics HTTP/1.1\r\nAccept: {accept}")).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        }
    });
}

#[test]
fn a_scraper_that_takes_gzip_gets_gzip() {
    with_service(Limits::default(), good(), service(), async |address| {
        let whole = get(&address, "/metrics").await;
        for none in ["identity", "gzip;q=0", "br"] {
            let answer = request(&address, &format!("GET /metrics HTTP/1.1\r\nAccept-Encoding: {none}")).await;
            assert_eq!(body(&String::from_utf8(answer).unwrap()), body(&whole));
        }
        let answer = request(&address, "GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip").await;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&answer[end + 4..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, body(&whole));
        assert!(answer.len() * 4 < whole.len(), "{} of {}", answer.len(), whole.len());
    });
}

#[test]
fn maps_that_cannot_be_read_are_an_error_and_not_ready() {
    let read: Read = Arc::new(|| Err(anyhow::anyhow!("EPERM").context("cannot read the map TOTALS")));
    with_service(Limits::default(), read, service(), async |address| {
        for (path, wanted) in [("/metrics", "500"), ("/", "500"), ("/-/ready", "503")] {
            let answer = get(&address, path).await;
            assert!(status(&answer) == wanted && body(&answer) == "cannot read the map TOTALS: EPERM\n", "{answer}");
        }
        assert_eq!(status(&get(&address, "/-/healthy").await), "200");
    });
}

#[test]
fn a_service_without_a_probe_is_not_ready() {
    with_service(Limits::default(), good(), Service::default(), async |address| {
        let answer = get(&address, "/-/ready").await;
        assert!(status(&answer) == "503" && body(&answer).starts_with("no probe is attached"), "{answer}");
        assert_eq!(status(&get(&address, "/metrics").await), "200");
    });
}

#[test]
fn a_read_that_panics_ends_one_request_only() {
    let read: Read = Arc::new(|| panic!("broken"));
    with_service(Limits::default(), read, service(), async |address| {
        assert_eq!(status(&get(&address, "/metrics").await), "500");
        assert_eq!(status(&get(&address, "/-/healthy").await), "200");
    });
}

#[test]
fn scrapes_at_once_share_their_readings() {
    let readings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&readings);
    let read: Read = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200));
        Ok(snapshot())
    });
    with_service(Limits::default(), read, service(), async |address| {
        let scrapes: Vec<_> = (0..20)
            .map(|_| {
                let address = address.clone();
                tokio::spawn(async move { get(&address, "/metrics").await })
            })
            .collect();
        for scrape in scrapes {
            assert_eq!(status(&scrape.await.unwrap()), "200");
        }
    });
    // Two where all come before the first reading ends; a busy machine may bring some later.
    let readings = readings.load(Ordering::Relaxed);
    assert!((1..=6).contains(&readings), "{readings} readings for 20 scrapes");
}

#[test]
fn a_reading_that_takes_too_long_is_given_up() {
    let limits = Limits { answer: Duration::from_millis(300), ..Limits::default() };
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let read: Read = Arc::new(move || {
        let _ = gate.lock().unwrap().recv();
        Ok(snapshot())
    });
    with_service(limits, read, service(), async |address| {
        assert_eq!(status(&get(&address, "/metrics").await), "503");
        assert_eq!(status(&get(&address, "/-/healthy").await), "200");
        drop(open);
        // Within the tests' time.
        while status(&get(&address, "/metrics").await) != "200" {}
    });
}

#[test]
fn a_client_that_never_finishes_its_request_is_cut_off() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    with_service(limits, good(), service(), async |address| {
        for begin in ["", "GET /metrics HTTP/1.1\r\nHos"] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // Closed, or reset.
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"));
        }
    });
}

/// More answers than the kernel holds for a client that reads none.
async fn never_reads(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let _ = time::timeout(Duration::from_millis(50), stream.write_all(requests.as_bytes())).await;
    stream
}

#[test]
fn clients_that_hang_up_or_do_not_read_disturb_no_other() {
    with_service(Limits::default(), good(), service(), async |address| {
        let mut slow = Vec::new();
        for _ in 0..5 {
            slow.push(never_reads(&address).await);
            let mut gone = TcpStream::connect(&address).await.unwrap();
            gone.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        }
        assert_eq!(status(&get(&address, "/metrics").await), "200");
    });
}

#[test]
fn a_client_that_does_not_read_loses_its_place() {
    let limits = Limits { connections: 1, write: Duration::from_millis(100), ..Limits::default() };
    with_service(limits, good(), service(), async |address| {
        let slow = never_reads(&address).await;
        assert_eq!(status(&get(&address, "/-/healthy").await), "200");
        drop(slow);
    });
}

#[test]
fn the_longest_idle_connection_gives_way_to_a_new_one() {
    let limits = Limits { connections: 2, ..Limits::default() };
    with_service(limits, good(), service(), async |address| {
        let connect = async || {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            assert_eq!(status(&ask(&mut stream, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await), "200");
            stream
        };
        let (mut first, mut second) = (connect().await, connect().await);
        time::sleep(2 * limits.young).await;
        // The first is no longer the one that was served longest ago.
        assert_eq!(status(&ask(&mut first, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await), "200");
        assert_eq!(status(&get(&address, "/-/healthy").await), "200");
        assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "it was kept");
        assert_eq!(status(&ask(&mut first, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await), "200");
    });
}

/// A request on a connection that stays; the first part of the answer.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn a_connection_that_is_answered_does_not_give_way() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let read: Read = Arc::new(move || {
        let _ = gate.lock().unwrap().recv();
        Ok(snapshot())
    });
    with_service(limits, read, service(), async |address| {
        let ask = |path: &'static str| {
            let address = address.clone();
            tokio::spawn(async move { get(&address, path).await })
        };
        let first = ask("/metrics");
        time::sleep(3 * limits.young).await;
        let second = ask("/-/healthy");
        time::sleep(3 * limits.young).await;
        drop(open);
        assert_eq!(status(&first.await.unwrap()), "200");
        assert_eq!(status(&second.await.unwrap()), "200");
    });
}

#[test]
fn health_has_room_while_a_reading_hangs() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let read: Read = Arc::new(move || {
        let _ = gate.lock().unwrap().recv();
        Ok(snapshot())
    });
    with_service(Limits::default(), read, service(), async |address| {
        let waiting: Vec<_> = (0..200)
            .map(|_| {
                let address = address.clone();
                tokio::spawn(async move { get(&address, "/metrics").await })
            })
            .collect();
        for _ in 0..5 {
            time::sleep(Duration::from_millis(50)).await;
            let answer = time::timeout(WELL, get(&address, "/-/healthy")).await.expect("no answer within a second");
            assert_eq!(status(&answer), "200");
        }
        drop(open);
        let mut answered = 0;
        for one in waiting {
            let answer = one.await.unwrap();
            assert!(["200", "503"].contains(&status(&answer)), "{answer}");
            answered += usize::from(status(&answer) == "200");
        }
        assert!(answered >= Limits::default().turns, "{answered}");
    });
}

/// For a client that behaves.
const WELL: Duration = Duration::from_secs(1);

/// A client that takes a place and gives nothing, in one of five ways.
async fn hostile(address: String, manner: usize) {
    let address = address.parse().unwrap();
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        // So that answers that are not taken soon fill what the kernel holds.
        socket.set_recv_buffer_size(4096).unwrap();
        let Ok(mut stream) = socket.connect(address).await else { return };
        let mut buffer = [0; 64];
        match manner % 5 {
            // Says nothing, until it is thrown out; and again.
            0 => drop(stream.read(&mut buffer).await),
            // Half a head, and no more.
            1 => {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHos").await;
                drop(stream.read(&mut buffer).await);
            }
            // A head that comes byte by byte.
            2 => {
                while stream.write_all(b"x").await.is_ok()
                    && time::timeout(BEAT, stream.read(&mut buffer)).await.is_err()
                {}
            }
            // Many requests, of whose answers it takes none.
            3 => {
                let many = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(8);
                let _ = stream.write_all(many.as_bytes()).await;
                time::sleep(WELL).await;
            }
            // A whole request, and then silence.
            _ => {
                let _ = stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
            }
        }
        time::sleep(WELL / 2).await;
    }
}

const BEAT: Duration = Duration::from_millis(200);

/// What the hostile ones and the service need.
fn allow_descriptors(number: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(number.min(limit.maximum.unwrap_or(number))), ..limit })
        .unwrap();
}

#[test]
fn beside_a_thousand_hostile_connections_every_answer_comes_within_a_second() {
    const HOSTILE: usize = 1000;
    allow_descriptors(4096);
    with_service(Limits::default(), good(), service(), async |address| {
        // On a thread of their own, as the well-behaved one: what is measured is the service.
        let (done, end) = oneshot::channel::<()>();
        let target = address.clone();
        let crowd = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for number in 0..HOSTILE {
                    tokio::spawn(hostile(target.clone(), number));
                }
                let _ = end.await;
            });
        });
        time::sleep(Duration::from_millis(500)).await;
        // The machine that runs the tests may be the slow one, but not three times.
        let mut tries = Vec::new();
        while tries.len() < 3 && tries.last().is_none_or(|slowest| *slowest >= WELL) {
            let mut slowest = Duration::ZERO;
            for round in 0..21 {
                let path = ["/metrics", "/-/healthy", "/-/ready"][round % 3];
                let begin = std::time::Instant::now();
                let answer = get(&address, path).await;
                assert_eq!(status(&answer), "200", "{path}: {answer}");
                slowest = slowest.max(begin.elapsed());
                time::sleep(Duration::from_millis(30)).await;
            }
            tries.push(slowest);
        }
        done.send(()).unwrap();
        task::spawn_blocking(move || crowd.join().unwrap()).await.unwrap();
        assert!(tries.last().is_some_and(|slowest| *slowest < WELL), "the slowest answers took {tries:?}");
    });
}

#[test]
fn a_foreign_host_is_refused_and_http_1_1_has_one() {
    with_service(Limits::default(), good(), service(), async |address| {
        for (head, wanted) in [
            ("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
            ("GET /-/healthy HTTP/1.0\r\n\r\n", "200"),
            ("GET /-/healthy HTTP/1.1\r\n\r\n", "400"),
            ("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example:9757\r\n\r\n", "421"),
            ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "421"),
            ("GET /metrics HTTP/1.0\r\nHost: evil.example\r\n\r\n", "421"),
        ] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            assert_eq!(status(&ask(&mut stream, head).await), wanted, "{head}");
        }
    });
}

#[test]
fn too_large_a_request_is_refused() {
    with_service(Limits::default(), good(), service(), async |address| {
        let field = format!("GET /metrics HTTP/1.1\r\nX-Long: {}", "x".repeat(20 << 10));
        let many = format!("GET /metrics HTTP/1.1{}", "\r\nX: y".repeat(100));
        for head in [field, many] {
            let answer = String::from_utf8(request(&address, &head).await).unwrap();
            assert_eq!(status(&answer), "431", "{answer}");
        }
        // A body is not read.
        let answer = request(&address, "GET /-/healthy HTTP/1.1\r\nContent-Length: 99999999999").await;
        assert_eq!(status(&String::from_utf8(answer).unwrap()), "200");
    });
}

#[test]
fn a_connection_serves_many_requests_and_ends_with_the_service() {
    let mut stream = with_service(Limits::default(), good(), service(), async |address| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        for _ in 0..3 {
            stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(buffer[..length].ends_with(b"healthy\n"));
        }
        stream.into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

/// Whom a restart of the service finds between `connect` and `write`.
#[test]
fn a_client_that_was_accepted_before_the_stop_is_answered_after_it() {
    const BEAT: Duration = Duration::from_millis(100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let server = tokio::spawn(serve(vec![listener], content(good(), service()), stopped));
        let mut stream = TcpStream::connect(&address).await.unwrap();
        time::sleep(BEAT).await;
        stop.send(()).unwrap();
        time::sleep(BEAT).await;
        assert!(TcpStream::connect(&address).await.is_err(), "it still listens");
        // Without `Connection: close`: the service ends it.
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(status(&answer), "200", "{answer:?}");
        time::timeout(LONG, server).await.expect("the service does not stop").unwrap();
    });
}

#[test]
fn a_client_that_asks_nothing_holds_a_stop_up_no_longer_than_the_limit() {
    let limits = Limits { stop: Duration::from_millis(300), ..Limits::default() };
    let mut begin = None;
    let stream = with_service(limits, good(), service(), async |address| {
        let stream = TcpStream::connect(&address).await.unwrap();
        time::sleep(Duration::from_millis(50)).await;
        begin = Some(std::time::Instant::now());
        stream
    });
    assert!(begin.unwrap().elapsed() < Duration::from_secs(2));
    drop(stream);
}

#[test]
fn several_places_are_served_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let places = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
        let listeners: Vec<_> = places.iter().map(|place| bind(&place.parse().unwrap()).unwrap()).collect();
        let address = listeners[0].to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let server = tokio::spawn(serve(listeners, content(good(), service()), stopped));
        assert_eq!(status(&get(&address, "/metrics").await), "200");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(body(&answer), "ready\n");
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(!path.exists(), "the socket is left behind");
    });
}
