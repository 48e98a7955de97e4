//! Tests of the meaning of "ok": updates that stop half-way, registers that are rolled back, bytes requested without
//! success. The reference is the probe's requests and the kernel's answers.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::without_tracer;
use crate::{
    call_counts::CallCounts,
    context::Context,
    daemon::{Daemon, Scrape},
    errno::result_name,
    pinscope,
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
};

/// Number of calls of each kind that the probe makes.
const HALF_REFUSED: u64 = 3;
const ROLLED_BACK: u64 = 5;
const LARGE: u64 = 2;
const LARGE_BYTES: u64 = 512 << 20;
/// Valid buffers in a register that is rolled back.
const GOOD: u64 = 64;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("outcomes_in_a_report", in_a_report).within(Duration::from_mins(2)),
        Test::new("daemon_outcomes", in_the_daemon).within(Duration::from_mins(2)),
    ]
}

/// Makes every call, and fails unless the kernel answers each as expected.
pub fn probe() -> ExitCode {
    match calls() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn calls() -> anyhow::Result<()> {
    let mut space = Space::new(16 * PAGE);
    let address = space.map(Kind::Anon, 8 * PAGE)?;
    let bad = Buffer { address: space.map(Kind::ReadOnly, PAGE)?, length: PAGE };
    let good: Vec<Buffer> = (0..8).map(|page| Buffer { address: address + page * PAGE, length: PAGE }).collect();
    let ring = Ring::new()?;
    let expect = |request: Request<'_>, truth: i64| {
        let answer = ring.call(request).ret;
        ensure!(answer == truth, "{request:?} was answered {}, not {truth}", result_name(answer));
        Ok(())
    };
    let refused = -i64::from(libc::EFAULT);
    expect(Request::Register(&good), 0)?;
    for _ in 0..HALF_REFUSED {
        expect(Request::Update(0, &[good[0], bad]), 1)?;
        expect(Request::Update(2, &[EMPTY, bad, good[3]]), 1)?;
    }
    expect(Request::Update(0, &good[..2]), 2)?;
    expect(Request::Update(5, &[EMPTY]), 1)?;
    expect(Request::Update(0, &[bad]), refused)?;
    expect(Request::Unregister, 0)?;
    let spoilt: Vec<Buffer> = good.iter().copied().cycle().take(GOOD as usize).chain([bad]).collect();
    for _ in 0..ROLLED_BACK {
        expect(Request::Register(&spoilt), refused)?;
    }
    let mut large = Space::new(LARGE_BYTES);
    let large = Buffer { address: large.map(Kind::ReadOnly, LARGE_BYTES)?, length: LARGE_BYTES };
    for _ in 0..LARGE {
        expect(Request::Register(&[large]), refused)?;
    }
    // The errno differs between kernels.
    let too_long = ring.call(Request::Register(&[Buffer { length: 1 << 62, ..good[0] }])).ret;
    ensure!(too_long < 0, "a buffer of 2^62 bytes was taken");
    println!("{TOLD}{}", result_name(too_long));
    Ok(())
}

/// Beginning of the probe's only line.
const TOLD: &str = "too long: ";

/// Counts by operation and result. The probe prints the errno with which its longest buffer was refused.
fn results(stdout: &str) -> anyhow::Result<CallCounts> {
    let too_long = stdout.lines().find_map(|line| line.strip_prefix(TOLD)).context("the probe printed nothing")?;
    let mut truth = CallCounts::default();
    truth.add("register", "ok", 1);
    truth.add("register", "EFAULT", REFUSED_REGISTERS - 1);
    truth.add("register", too_long, 1);
    truth.add("update", "ok", 2);
    truth.add("update", "partial", 2 * HALF_REFUSED);
    truth.add("update", "EFAULT", 1);
    truth.add("unregister", "ok", 1);
    Ok(truth)
}

const REFUSED_REGISTERS: u64 = ROLLED_BACK + LARGE + 1;
/// Buffers that were registered when their calls returned, one page each.
const REGISTERED: u64 = 8 + HALF_REFUSED + 2;
/// Buffers that could not be pinned, except for the longest one.
const UNPINNABLE: u64 = 2 * HALF_REFUSED + 1 + ROLLED_BACK + LARGE;
/// Bytes requested without success.
const REFUSED_BYTES: u64 = (UNPINNABLE - LARGE + ROLLED_BACK * GOOD) * PAGE + LARGE * LARGE_BYTES;
/// Bytes added by the longest buffer, on kernels that call the per-buffer function for it.
const TOO_LONG: u64 = 1 << 40;

/// Calls that put a buffer into the table.
const INSTALLATIONS: u64 = 1 + HALF_REFUSED + 1;

fn in_a_report(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let arguments = ["report", "--json", "--attach", &context.attach, "--", binary, "probe", "outcomes"];
    let finished = pinscope::run(&arguments, Duration::from_mins(1))?.expect_code(0)?;
    let report = Report::of(&finished)?;
    report.balanced(&results(&finished.stdout)?)?;
    let json = report.json();
    let update = &json["operations"][1];
    let half = 2 * HALF_REFUSED;
    ensure!(update["ok"] == 2 && update["partial"] == half && update["failed"] == 1, "{update}");
    ensure!(update["partial_reasons"] == json!([{"result": "EFAULT", "count": half}]), "{update}");
    let durations = ["ok", "partial", "failed"].map(|outcome| update["duration"][outcome]["count"].clone());
    ensure!(durations == [json!(2), json!(half), json!(1)], "{durations:?}");
    let told = &json["installations"];
    ensure!(told["before_requests"] == INSTALLATIONS && told["after_requests"] == 0, "{told}: {INSTALLATIONS}");
    let process = only(&json["processes"])?;
    ensure!(process["failed"] == REFUSED_REGISTERS + 1 && process["partial"] == half, "{process}");
    let ring = only(&json["rings"]["list"])?;
    ensure!(ring["registers"] == 1 && ring["updates"] == INSTALLATIONS - 1, "{ring}");
    bytes(json, process)?;
    if context.kernel.can_be_walked() {
        buffers(&report)?;
    }
    Ok(Verdict::Passed)
}

/// Requested and registered bytes are separate figures.
fn bytes(json: &Value, process: &Value) -> anyhow::Result<()> {
    let told = &json["registration_bytes"];
    ensure!(told["sum"] == REGISTERED * PAGE, "{} bytes registered: {told}", REGISTERED * PAGE);
    let refused = json["refused_bytes"].as_u64().context("no refused bytes")?;
    ensure!(
        [REFUSED_BYTES, REFUSED_BYTES + TOO_LONG].contains(&refused),
        "{refused} refused, expected {REFUSED_BYTES}"
    );
    ensure!(process["bytes"] == REGISTERED * PAGE && process["refused_bytes"] == refused, "{process}");
    Ok(())
}

/// A buffer that is not registered when the call returns does not count as accepted.
fn buffers(report: &Report) -> anyhow::Result<()> {
    let [ok, failed] = [true, false].map(|ok| report.buffers_by_class(ok));
    let truth = |count: u64| BTreeMap::from([("anon".to_owned(), count)]);
    let let_go = ROLLED_BACK * GOOD;
    ensure!(ok? == truth(REGISTERED), "{}", report.json()["backings"]);
    ensure!(failed? == truth(UNPINNABLE + let_go), "{}", report.json()["backings"]);
    let judged = &report.json()["judgements"];
    ensure!(judged["clean"] == REGISTERED && judged["rolled_back"] == let_go, "{judged}");
    let others = judged["others"].as_array().context("no others")?;
    let others: u64 = others.iter().filter_map(|one| one["buffers"].as_u64()).sum();
    ensure!(others == UNPINNABLE && judged["unjudged"] == 0, "{UNPINNABLE} unpinnable: {judged}");
    // Pins of released buffers have cost time nevertheless.
    let walked = report.json()["walks"]["complete"].as_u64();
    ensure!(walked == Some(REGISTERED + UNPINNABLE + let_go), "{}", report.json()["walks"]);
    Ok(())
}

fn only(list: &Value) -> anyhow::Result<&Value> {
    let list = list.as_array().context("no list")?;
    ensure!(list.len() == 1, "one is expected: {list:?}");
    Ok(&list[0])
}

fn in_the_daemon(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &["--rings", "--workloads", "20"])?;
    let before = daemon.scrape()?;
    let binary = std::env::current_exe()?;
    let probe = std::process::Command::new(binary).args(["probe", "outcomes"]).output()?;
    ensure!(probe.status.success(), "the probe ended with {}", probe.status);
    let truth = results(&String::from_utf8_lossy(&probe.stdout))?;
    let after = daemon.scrape()?;
    daemon.end()?;
    let grown = Grown { before, after };
    let half = 2 * HALF_REFUSED;
    for operation in ["register", "update", "unregister"] {
        for result in ["ok", "partial", "EFAULT"] {
            let labels = [("operation", operation), ("result", result)];
            grown.is("pinscope_registrations_total", &labels, truth.count(operation, result))?;
        }
    }
    grown.is("pinscope_partial_updates_total", &[("reason", "EFAULT")], half)?;
    grown.is("pinscope_partial_updates_total", &[], half)?;
    let durations = "pinscope_registration_duration_seconds_count";
    for (outcome, count) in BTreeMap::from([("ok", 2), ("partial", half), ("failed", 1)]) {
        grown.is(durations, &[("operation", "update"), ("outcome", outcome)], count)?;
    }
    for (outcome, count) in BTreeMap::from([("ok", 3), ("partial", half), ("failed", REFUSED_REGISTERS + 1)]) {
        grown.is("pinscope_workload_registrations_total", &[("outcome", outcome)], count)?;
    }
    grown.is("pinscope_installations_total", &[], INSTALLATIONS)?;
    grown.is("pinscope_ring_installation_ordinal_count", &[], INSTALLATIONS)?;
    grown.is("pinscope_workload_installations_total", &[], INSTALLATIONS)?;
    for metric in ["pinscope_registration_bytes_sum", "pinscope_workload_bytes_total"] {
        grown.is(metric, &[], REGISTERED * PAGE)?;
    }
    // Where the pin represents its buffer, the longest buffer is not seen.
    let seen = if context.kernel.can_be_walked() { 0 } else { TOO_LONG };
    for metric in ["pinscope_refused_bytes_total", "pinscope_workload_refused_bytes_total"] {
        let told = grown.by(metric, &[]);
        let truth = [REFUSED_BYTES, REFUSED_BYTES + seen];
        ensure!(
            truth.iter().any(|truth| (told - *truth as f64).abs() < 0.5),
            "{metric} grew by {told}, expected {truth:?}"
        );
    }
    if context.kernel.can_be_walked() {
        let let_go = ROLLED_BACK * GOOD;
        let (backing, judged) = ("pinscope_backing_buffers_total", "pinscope_judged_buffers_total");
        grown.is(backing, &[("outcome", "ok")], REGISTERED)?;
        grown.is(backing, &[("outcome", "failed")], UNPINNABLE + let_go)?;
        for (word, count) in [("clean", REGISTERED), ("rolled_back", let_go), ("other", UNPINNABLE), ("unjudged", 0)] {
            grown.is(judged, &[("judged", word)], count)?;
        }
        grown.is("pinscope_policy_answers_total", &[("answer", "agreed")], REGISTERED + UNPINNABLE)?;
        grown.is("pinscope_policy_answers_total", &[], REGISTERED + UNPINNABLE)?;
    }
    Ok(Verdict::Passed)
}

/// Differences between two scrapes, with the probe between them.
struct Grown {
    before: Scrape,
    after: Scrape,
}

impl Grown {
    fn by(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.sum(metric, labels) - self.before.sum(metric, labels)
    }

    fn is(&self, metric: &str, labels: &[(&str, &str)], truth: u64) -> anyhow::Result<()> {
        let grown = self.by(metric, labels);
        ensure!((grown - truth as f64).abs() < 0.5, "{metric}{labels:?} grew by {grown}, expected {truth}");
        Ok(())
    }
}
