//! What "ok" means: updates that stop half-way, registers that are rolled back, bytes that were asked for in vain. The
//! truth is what the probe asked for and the kernel answered.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::without_tracer;
use crate::{
    context::Context,
    daemon::{Daemon, Scrape},
    errno::result_name,
    pinscope,
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    tally::Tally,
};

/// Calls of each kind that the probe makes.
const HALF_REFUSED: u64 = 3;
const ROLLED_BACK: u64 = 5;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("outcomes_in_a_report", in_a_report).within(Duration::from_mins(2)),
        Test::new("daemon_outcomes", in_the_daemon).within(Duration::from_mins(2)),
    ]
}

/// Makes every call, and fails unless the kernel answers each as laid out.
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
    let spoilt: Vec<Buffer> = good.iter().copied().cycle().take(64).chain([bad]).collect();
    for _ in 0..ROLLED_BACK {
        expect(Request::Register(&spoilt), refused)?;
    }
    Ok(())
}

/// By operation and result.
fn results() -> Tally {
    let mut truth = Tally::default();
    truth.add("register", "ok", 1);
    truth.add("register", "EFAULT", ROLLED_BACK);
    truth.add("update", "ok", 2);
    truth.add("update", "partial", 2 * HALF_REFUSED);
    truth.add("update", "EFAULT", 1);
    truth.add("unregister", "ok", 1);
    truth
}

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
    report.balanced(&results())?;
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
    ensure!(process["failed"] == ROLLED_BACK + 1 && process["partial"] == half, "{process}");
    let ring = only(&json["rings"]["list"])?;
    ensure!(ring["registers"] == 1 && ring["updates"] == INSTALLATIONS - 1, "{ring}");
    Ok(Verdict::Passed)
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
    let status = std::process::Command::new(binary).args(["probe", "outcomes"]).status()?;
    ensure!(status.success(), "the probe ended with {status}");
    let after = daemon.scrape()?;
    daemon.end()?;
    let grown = Grown { before, after };
    let half = 2 * HALF_REFUSED;
    for operation in ["register", "update", "unregister"] {
        for result in ["ok", "partial", "EFAULT"] {
            let labels = [("operation", operation), ("result", result)];
            grown.is("pinscope_registrations_total", &labels, results().count(operation, result))?;
        }
    }
    grown.is("pinscope_partial_updates_total", &[("reason", "EFAULT")], half)?;
    grown.is("pinscope_partial_updates_total", &[], half)?;
    let durations = "pinscope_registration_duration_seconds_count";
    for (outcome, count) in BTreeMap::from([("ok", 2), ("partial", half), ("failed", 1)]) {
        grown.is(durations, &[("operation", "update"), ("outcome", outcome)], count)?;
    }
    for (outcome, count) in BTreeMap::from([("ok", 3), ("partial", half), ("failed", ROLLED_BACK + 1)]) {
        grown.is("pinscope_workload_registrations_total", &[("outcome", outcome)], count)?;
    }
    grown.is("pinscope_installations_total", &[], INSTALLATIONS)?;
    grown.is("pinscope_ring_installation_ordinal_count", &[], INSTALLATIONS)?;
    grown.is("pinscope_workload_installations_total", &[], INSTALLATIONS)?;
    Ok(Verdict::Passed)
}

/// Two scrapes with the probe between them.
struct Grown {
    before: Scrape,
    after: Scrape,
}

impl Grown {
    fn is(&self, metric: &str, labels: &[(&str, &str)], truth: u64) -> anyhow::Result<()> {
        let grown = self.after.sum(metric, labels) - self.before.sum(metric, labels);
        ensure!((grown - truth as f64).abs() < 0.5, "{metric}{labels:?} grew by {grown}, in truth by {truth}");
        Ok(())
    }
}
