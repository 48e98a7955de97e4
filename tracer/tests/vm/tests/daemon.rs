//! The daemon: what it serves has to be what the generator did.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{storm::generator, without_tracer};
use crate::{
    attempt::perform,
    context::Context,
    generate,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    tally::Tally,
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("daemon_serves_what_was_done", serves).within(Duration::from_mins(3)),
        Test::new("daemon_port_taken", port_taken),
    ]
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn serves(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let address = free_port()?;
    let listen = address.to_string();
    let mut daemon =
        Running::start(&mut pinscope::command(&["daemon", "--attach", &context.attach, "--listen", &listen]))?;
    let before = registrations(&first_scrape(&mut daemon, address)?)?;
    ensure!(before.all() == 0, "counted before anything was done:\n{before}");
    let words = generator(&["storm", "--threads", "2", "--count", "3000", "--seed", "7"])?;
    let mut command = std::process::Command::new(&words[0]);
    Running::start(pinscope::piped(command.args(&words[1..])))?.finish(Duration::from_mins(1))?.expect_code(0)?;
    let truth = generate::read("/tmp/guest-account.json")?;
    let text = get(address)?;
    let seen = registrations(&text)?;
    ensure!(seen == truth, "/metrics has:\n{seen}in truth:\n{truth}");
    let ledger: f64 = samples(&text, "pinscope_ledger_calls_total").map(|(_, value)| value).sum();
    ensure!((ledger - truth.all() as f64).abs() < 0.5, "ledger {ledger}, in truth {}", truth.all());
    counts_what_is_usual(context, address)?;
    daemon.signal(libc::SIGTERM);
    let finished = daemon.finish(Duration::from_secs(10))?;
    ensure!(finished.stderr.is_empty(), "standard error: {}", finished.stderr);
    finished.expect_code(0)?;
    Ok(Verdict::Passed)
}

/// The registration of one buffer in one VMA takes a short way through the probes, and only a daemon's: its figures are
/// held against what is known of the calls, beside one of three VMAs that goes the long way.
fn counts_what_is_usual(context: &Context, address: SocketAddr) -> anyhow::Result<()> {
    const USUAL: u32 = 20;
    let before = get(address)?;
    let mut space = Space::new(16 * PAGE);
    let one = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let three = [Buffer { address: space.map_split(3)?, length: 3 * PAGE }];
    for _ in 0..USUAL {
        perform(context, &Ring::new()?, Request::Register(&one))?;
    }
    perform(context, &Ring::new()?, Request::Register(&three))?;
    let after = get(address)?;
    let usual = f64::from(USUAL);
    let walked = if context.kernel.can_be_walked() { 1.0 } else { 0.0 };
    for (name, expected) in [
        ("pinscope_registration_buffers_count ", usual + 1.0),
        ("pinscope_registration_buffers_sum ", usual + 1.0),
        ("pinscope_registration_bytes_sum ", (usual + 3.0) * PAGE as f64),
        ("pinscope_buffer_vmas_bucket{le=\"1\"} ", usual * walked),
        ("pinscope_buffer_vmas_sum ", (usual + 3.0) * walked),
        ("pinscope_registration_vmas_bucket{le=\"1\"} ", usual * walked),
        ("pinscope_registration_vmas_sum ", (usual + 3.0) * walked),
    ] {
        let grown = value(&after, name) - value(&before, name);
        ensure!((grown - expected).abs() < 0.5, "{name}grew by {grown}, in truth by {expected}");
    }
    Ok(())
}

/// The value of the line that begins so, 0 where there is none.
fn value(text: &str, line: &str) -> f64 {
    text.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
}

fn port_taken(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let arguments = ["daemon", "--attach", &context.attach, "--listen", &listen];
    pinscope::run(&arguments, Duration::from_secs(40))?.expect_error_line(&[&listen])?;
    Ok(Verdict::Passed)
}

fn first_scrape(daemon: &mut Running, address: SocketAddr) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        match get(address) {
            Ok(text) => return Ok(text),
            Err(error) if !daemon.is_running() => bail!("the daemon ended: {error:#}; {}", daemon.stderr()),
            Err(error) if Instant::now() > deadline => bail!("no /metrics: {error:#}; {}", daemon.stderr()),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// GET /metrics.
fn get(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

/// Labels and value of each sample of a metric.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?.strip_prefix('{')?;
        let (labels, value) = rest.split_once("} ")?;
        Some((labels, value.trim().parse().ok()?))
    })
}

fn registrations(text: &str) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (labels, value) in samples(text, "pinscope_registrations_total") {
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let operation = label("operation").with_context(|| format!("no operation in {labels}"))?;
        tally.add(operation, label("result").with_context(|| format!("no result in {labels}"))?, value as u64);
    }
    Ok(tally)
}
