//! A real Prometheus scrapes the service while fio and the generators run. Its answers are compared with their
//! accounts.

mod load;
mod server;

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    rc::Rc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use self::{load::Load, server::Server};
use super::debian;
use crate::{
    call_counts::CallCounts,
    context::Context,
    http,
    protocol::{Test, TestResult, Verdict, no_problems},
};

/// Queries of dashboards and rules: place, expression, and whether it may be empty.
const EXPRESSIONS: &str = "/root/expressions.json";

/// Shared evidence, collected by the first test that needs it.
struct Evidence {
    server: Server,
    load: Load,
    storm: CallCounts,
    /// Times of samples: before everything, after the load, after the storm.
    times: [f64; 3],
}

/// Labels of a series, without its name.
type Labels = BTreeMap<String, String>;
type Shared = Rc<OnceCell<Result<Evidence, String>>>;

pub fn tests() -> Vec<Test> {
    let shared = Shared::default();
    let test = |name: &str, run: fn(&Evidence) -> TestResult| {
        let shared = Rc::clone(&shared);
        Test::new(name, move |_: &Context| -> TestResult {
            match shared.get_or_init(|| evidence().map_err(|error| format!("{error:#}"))) {
                Ok(evidence) => run(evidence),
                Err(error) => bail!("{error}"),
            }
        })
        .within(Duration::from_mins(12))
    };
    vec![
        test("prometheus_scrapes_throughout", throughout),
        test("prometheus_registrations", registrations),
        test("prometheus_sizes", sizes),
        test("prometheus_backings", backings),
        test("prometheus_workloads", workloads),
        test("prometheus_every_expression_has_data", expressions),
        test("prometheus_counters_never_go_back", monotonic),
        test("prometheus_promtool_has_no_complaint", promtool),
    ]
}

fn evidence() -> anyhow::Result<Evidence> {
    debian::fresh()?;
    let server = Server::start(debian::ADDRESS)?;
    let before = server.next_sample()?;
    let load = Load::run().context("the load")?;
    let between = server.next_sample()?;
    let storm = load::storm()?;
    let after = server.next_sample()?;
    Ok(Evidence { server, load, storm, times: [before, between, after] })
}

impl Evidence {
    /// Growth of each series of an expression until a time. A series that did not exist before began at 0.
    fn growth(&self, expression: &str, until: f64) -> anyhow::Result<BTreeMap<Labels, f64>> {
        let mut grown = self.server.query(expression, until)?;
        for (labels, before) in self.server.query(expression, self.times[0])? {
            *grown.get_mut(&labels).with_context(|| format!("{expression} has lost {labels:?}"))? -= before;
        }
        Ok(grown)
    }

    /// Fails unless the sum of a metric's series grew by `truth`.
    fn is(&self, metric: &str, until: f64, truth: u64) -> anyhow::Result<()> {
        let grown = self.growth(&format!("sum({metric})"), until)?;
        let seen = grown.values().next().with_context(|| format!("Prometheus has no {metric}"))?;
        ensure!((seen - truth as f64).abs() < 0.5, "{metric} grew by {seen}, expected {truth}");
        Ok(())
    }

    /// Whole seconds from the first sample to the last, and the time of the last.
    fn span(&self) -> (u64, f64) {
        let [first, _, last] = self.times;
        ((last - first) as u64, last)
    }
}

/// Every scrape was answered, and everything was measured.
fn throughout(evidence: &Evidence) -> TestResult {
    let (seconds, last) = evidence.span();
    ensure!(seconds >= load::SECONDS, "the load took {seconds} s");
    let over = |function: &str, metric: &str| {
        let expression = format!("{function}_over_time({metric}{{job=\"pinscope\"}}[{seconds}s])");
        let found = evidence.server.query(&expression, last)?;
        found.values().next().copied().with_context(|| format!("Prometheus has no series for {expression}"))
    };
    let samples = over("count", "up")?;
    let answered = over("sum", "up")?;
    let longest = over("max", "scrape_duration_seconds")?;
    ensure!(answered >= samples - 0.5, "{answered} of {samples} scrapes were answered, the longest after {longest} s");
    // Tolerance for a busy machine.
    ensure!(samples > seconds as f64 / server::INTERVAL as f64 * 0.7, "{samples} samples in {seconds} s");
    let coverage = over("min", "pinscope_coverage_ratio")?;
    ensure!((coverage - 1.0).abs() < 1e-9, "coverage was down to {coverage}");
    Ok(Verdict::Passed)
}

/// Exact counts by operation and result.
fn registrations(evidence: &Evidence) -> TestResult {
    let mut seen = CallCounts::default();
    let expression = "sum by (operation, result) (pinscope_registrations_total)";
    for (labels, count) in evidence.growth(expression, evidence.times[2])? {
        let label = |name: &str| labels.get(name).with_context(|| format!("no {name} in {labels:?}"));
        seen.add(label("operation")?, label("result")?, count.round() as u64);
    }
    let mut truth = evidence.load.results.clone();
    truth.merge(&evidence.storm);
    ensure!(seen == truth, "Prometheus has:\n{seen}expected:\n{truth}");
    ensure!(truth.failed() > 0, "nothing was refused");
    evidence.is("pinscope_ledger_calls_total", evidence.times[2], truth.all())?;
    Ok(Verdict::Passed)
}

/// Buffers, bytes and VMAs of all registers and updates.
fn sizes(evidence: &Evidence) -> TestResult {
    let load = &evidence.load;
    let sums = [
        ("pinscope_registration_buffers_sum", load.buffers),
        // Some of the requested bytes were refused.
        ("pinscope_registration_bytes_sum + pinscope_refused_bytes_total", load.bytes),
        ("pinscope_buffer_vmas_sum", load.buffers_vmas),
        ("pinscope_registration_vmas_sum", load.vmas),
    ];
    sums.into_iter().try_for_each(|(metric, truth)| evidence.is(metric, evidence.times[1], truth))?;
    Ok(Verdict::Passed)
}

/// Buffers, VMAs and bytes by backing.
fn backings(evidence: &Evidence) -> TestResult {
    let mut problems = Vec::new();
    let metrics = [
        ("pinscope_backing_buffers_total", 0),
        ("pinscope_backing_vmas_total", 1),
        ("pinscope_backing_bytes_total", 2),
    ];
    for (metric, place) in metrics {
        let grown = evidence.growth(&format!("sum by (class) ({metric})"), evidence.times[1])?;
        let seen: BTreeMap<_, _> = grown
            .into_iter()
            .filter(|(_, count)| *count > 0.5)
            .map(|(mut labels, count)| (labels.remove("class").unwrap_or_default(), count.round() as u64))
            .collect();
        let truth = &evidence.load.classes;
        let truth: BTreeMap<_, _> = truth.iter().map(|(class, counts)| (class.clone(), counts[place])).collect();
        if seen != truth {
            problems.push(format!("{metric} grew by {seen:?}, expected {truth:?}"));
        }
    }
    no_problems(&problems)?;
    Ok(Verdict::Passed)
}

/// Every unit's calls are counted under its own name, and nowhere else.
fn workloads(evidence: &Evidence) -> TestResult {
    const METRIC: &str = "pinscope_workload_registrations_total";
    let grown = evidence.growth(&format!("sum by (workload, outcome) ({METRIC})"), evidence.times[1])?;
    let mut seen: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (labels, count) in grown.into_iter().filter(|(_, count)| *count > 0.5) {
        let label = |name: &str| labels.get(name).with_context(|| format!("no {name} in {labels:?}"));
        let place = usize::from(label("outcome")? != "ok");
        seen.entry(label("workload")?.clone()).or_default()[place] += count.round() as u64;
    }
    let truth = &evidence.load.units;
    ensure!(seen == *truth, "Prometheus has {seen:?}, expected {truth:?}");
    // The storm is one more workload; the sum is that of all calls of these kinds.
    let all = ["register", "update", "clone"];
    let all: u64 = all.map(|name| evidence.load.results.total(name) + evidence.storm.total(name)).iter().sum();
    evidence.is(METRIC, evidence.times[2], all)?;
    Ok(Verdict::Passed)
}

/// Evaluates the expressions of dashboards and rules.
fn expressions(evidence: &Evidence) -> TestResult {
    let Ok(text) = fs::read_to_string(EXPRESSIONS) else {
        return Ok(Verdict::Ignored(format!("no {EXPRESSIONS} in this guest")));
    };
    let all: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(all.len() > 50, "only {} expressions", all.len());
    // Results of the rules date from their last evaluation.
    let time = evidence.server.next_evaluation(evidence.times[2])?;
    let mut problems = Vec::new();
    for one in &all {
        let word = |name: &str| one[name].as_str().with_context(|| format!("no {name} in {one}"));
        match evidence.server.query(word("expression")?, time) {
            Ok(found) if found.values().any(|value| !value.is_nan()) => {}
            Ok(_) if may_be_empty(evidence, &one["may_be_empty"], time)? => {}
            Ok(_) => problems.push(format!("{}: no data: {}", word("place")?, word("expression")?)),
            Err(error) => problems.push(format!("{}: {error:#}", word("place")?)),
        }
    }
    no_problems(&problems)?;
    Ok(Verdict::Passed)
}

/// Whether an expression has an excuse for being empty, and the metric named by the excuse, if any, is absent.
fn may_be_empty(evidence: &Evidence, excuse: &Value, time: f64) -> anyhow::Result<bool> {
    let Some(metric) = excuse["where_absent"].as_str() else { return Ok(!excuse.is_null()) };
    let there = format!("{{__name__=~\"{metric}(_bucket)?\"}}");
    Ok(evidence.server.query(&there, time)?.is_empty())
}

/// No counter and no bucket ever decreases between samples.
fn monotonic(evidence: &Evidence) -> TestResult {
    let (seconds, last) = evidence.span();
    let is_counter = |name: &String| {
        let kinds = ["_total", "_count", "_sum", "_bucket"];
        name.starts_with("pinscope_") && kinds.iter().any(|kind| name.ends_with(kind))
    };
    let counters: Vec<_> = evidence.server.names()?.into_iter().filter(is_counter).collect();
    ensure!(counters.len() > 30, "the counters are {counters:?}");
    for counter in counters {
        let resets = evidence.server.query(&format!("resets({counter}[{seconds}s]) > 0"), last)?;
        ensure!(resets.is_empty(), "{counter} decreased: {resets:?}");
    }
    Ok(Verdict::Passed)
}

/// Runs promtool on the live text.
fn promtool(_: &Evidence) -> TestResult {
    let text = http::get(debian::ADDRESS, "/metrics", Duration::from_secs(20))?;
    fs::write("/run/metrics.txt", &text)?;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting promtool")?;
    let mut stdin = child.stdin.take().context("promtool has no input")?;
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {}: {said}", output.status);
    Ok(Verdict::Passed)
}
