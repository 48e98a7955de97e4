//! Tests of the daemon: what it serves must equal what the generator did.

use std::{collections::BTreeMap, net::TcpListener, process::Command, time::Duration};

use anyhow::ensure;

use super::{policies, storm::generator, without_tracer};
use crate::{
    attempt::perform,
    context::Context,
    daemon::{Daemon, Scrape, label},
    generate,
    kernel::LOCK_TRACEPOINTS,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    scenario::{Account, Call},
    space::{Kind, Space},
    sys::PAGE,
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("daemon_serves_exact_counts", serves).within(Duration::from_mins(3)),
        Test::new("daemon_serves_evidence", serves_evidence).within(Duration::from_mins(3)),
        Test::new("daemon_port_taken", port_taken),
    ]
}

fn serves(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &[])?;
    let before = daemon.scrape()?.registrations()?;
    ensure!(before.all() == 0, "counted before any call:\n{before}");
    let words = generator(&["storm", "--threads", "2", "--count", "3000", "--seed", "7"])?;
    let mut command = Command::new(&words[0]);
    Running::start(pinscope::piped(command.args(&words[1..])))?.finish(Duration::from_mins(1))?.expect_code(0)?;
    let truth = generate::read("/tmp/guest-account.json")?;
    let scrape = daemon.scrape()?;
    let seen = scrape.registrations()?;
    ensure!(seen == truth, "/metrics has:\n{seen}expected:\n{truth}");
    let ledger = scrape.sum("pinscope_ledger_calls_total", &[]);
    ensure!((ledger - truth.all() as f64).abs() < 0.5, "ledger {ledger}, expected {}", truth.all());
    counts_what_is_usual(context, &daemon)?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// A buffer in a single VMA takes a shortcut through the daemon's probes. Its figures are compared with the known
/// calls, next to a buffer with three VMAs, which takes the long path.
fn counts_what_is_usual(context: &Context, daemon: &Daemon) -> anyhow::Result<()> {
    const USUAL: u32 = 20;
    let before = daemon.scrape()?;
    let mut space = Space::new(16 * PAGE);
    let one = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let three = [Buffer { address: space.map_split(3)?, length: 3 * PAGE }];
    for _ in 0..USUAL {
        perform(context, &Ring::new()?, Request::Register(&one))?;
    }
    perform(context, &Ring::new()?, Request::Register(&three))?;
    let after = daemon.scrape()?;
    let usual = f64::from(USUAL);
    let walked = if context.kernel.can_be_walked() { 1.0 } else { 0.0 };
    let one = [("le", "1")];
    let expected: [(&str, &[_], _); 7] = [
        ("pinscope_registration_buffers_count", &[], usual + 1.0),
        ("pinscope_registration_buffers_sum", &[], usual + 1.0),
        ("pinscope_registration_bytes_sum", &[], (usual + 3.0) * PAGE as f64),
        ("pinscope_buffer_vmas_bucket", &one, usual * walked),
        ("pinscope_buffer_vmas_sum", &[], (usual + 3.0) * walked),
        ("pinscope_registration_vmas_bucket", &one, usual * walked),
        ("pinscope_registration_vmas_sum", &[], (usual + 3.0) * walked),
    ];
    for (name, labels, expected) in expected {
        let grown = after.sum(name, labels) - before.sum(name, labels);
        ensure!((grown - expected).abs() < 0.5, "{name} {labels:?} grew by {grown}, expected {expected}");
    }
    Ok(())
}

/// Rings, policies, waits and phases, with all optional measurements.
fn serves_evidence(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    // The shared session's walks would count as waits for mmap_lock.
    drop(context.take_session());
    let daemon = Daemon::start(context, &["--rings", "--locks", "--phases"])?;
    let probe = guest(&["probe", "policies"])?;
    let switches = scenario(&["switch_sets", "--count", "40"])?;
    let server = scenario(&["setup_only", "--seconds", "1"])?;
    let scrape = daemon.scrape()?;
    daemon.end()?;
    let accounts = [&switches, &server];
    let accepted = policies::accepted(&probe);
    rings(&scrape, &accounts, accepted)?;
    if context.kernel.can_be_walked() {
        let clean = accounts.iter().flat_map(|account| installed(account)).map(|call| call.buffers).sum();
        judged(&scrape, &policies::truth(context, &probe)?, clean, policies::own(context))?;
    } else {
        ensure!(scrape.samples("pinscope_policy_refusals_total").count() == 0, "judged without a walk");
    }
    states(&scrape)?;
    on_request(context, &scrape)?;
    Ok(Verdict::Passed)
}

fn guest(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let running = Running::start(pinscope::piped(command.args(arguments)))?;
    Ok(running.finish(Duration::from_mins(1))?.expect_code(0)?.stdout)
}

fn scenario(arguments: &[&str]) -> anyhow::Result<Account> {
    const ACCOUNT: &str = "/tmp/guest-daemon.json";
    guest(&[&["scenario", "--out", ACCOUNT], arguments].concat())?;
    Account::read(ACCOUNT)
}

fn installed(account: &Account) -> impl Iterator<Item = &Call> {
    account.calls.iter().filter(|call| call.installed())
}

fn is(scrape: &Scrape, name: &str, labels: &[(&str, &str)], expected: u64) -> anyhow::Result<()> {
    ensure!(scrape.has(name, labels), "no {name} {labels:?}");
    let seen = scrape.sum(name, labels);
    ensure!((seen - expected as f64).abs() < 0.5, "{name} {labels:?} is {seen}, expected {expected}");
    Ok(())
}

/// `others` buffers were installed on another ring that had no requests.
fn rings(scrape: &Scrape, accounts: &[&Account], others: u64) -> anyhow::Result<()> {
    let calls = || accounts.iter().flat_map(|account| installed(account));
    let before = calls().filter(|call| call.requests_before == 0).count() as u64 + others;
    let after = calls().filter(|call| call.requests_before > 0).count() as u64;
    ensure!(after >= 30, "the scenario installed {after} sets at run time");
    let rings = accounts.len() as u64 + 1;
    is(scrape, "pinscope_installations_total", &[("requests", "before")], before)?;
    is(scrape, "pinscope_installations_total", &[("requests", "after")], after)?;
    is(scrape, "pinscope_ring_age_seconds_count", &[], before + after)?;
    is(scrape, "pinscope_ring_gap_seconds_count", &[], before + after - rings)?;
    is(scrape, "pinscope_ring_installation_ordinal_bucket", &[("le", "1")], rings)
}

/// Buffers for which another kernel's rule has a different answer: by that rule, the change, and the errno.
fn changes<'a>(truth: &'a policies::Counts, own: &str) -> BTreeMap<(&'static str, &'static str, &'a str), u64> {
    let mut changes = BTreeMap::new();
    for ((answers, here), buffers) in truth.iter().filter(|(key, _)| !is_unserved(key)) {
        for (policy, there) in policies::NAMES.into_iter().zip(answers).filter(|(policy, _)| *policy != own) {
            let change = match (here.as_str(), there.as_str()) {
                ("ok", there) if there != "ok" => ("refused", there),
                (here, "ok") if here != "ok" => ("accepted", here),
                _ => continue,
            };
            *changes.entry((policy, change.0, change.1)).or_default() += buffers;
        }
    }
    changes
}

/// Whether every rule accepts the buffer although the kernel refused it; no rule explains this.
fn is_unserved((answers, here): &(Vec<String>, String)) -> bool {
    here != "ok" && answers.iter().all(|answer| answer == "ok")
}

fn judged(scrape: &Scrape, truth: &policies::Counts, clean: u64, own: &str) -> anyhow::Result<()> {
    let mut refusals: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut all = clean;
    for ((answers, own), buffers) in truth {
        all += buffers;
        let outcome = if own == "ok" { "ok" } else { "failed" };
        for (policy, errno) in policies::NAMES.into_iter().zip(answers).filter(|(_, errno)| *errno != "ok") {
            *refusals.entry((policy, errno, outcome)).or_default() += buffers;
        }
    }
    for ((policy, errno, outcome), buffers) in &refusals {
        let labels = [("policy", *policy), ("errno", *errno), ("outcome", *outcome)];
        is(scrape, "pinscope_policy_refusals_total", &labels, *buffers)?;
    }
    is(scrape, "pinscope_policy_refusals_total", &[], refusals.values().sum())?;
    for ((policy, change, errno), buffers) in &changes(truth, own) {
        let labels = [("policy", *policy), ("change", *change), ("errno", *errno)];
        is(scrape, "pinscope_policy_changes_total", &labels, *buffers)?;
    }
    is(scrape, "pinscope_policy_changes_total", &[], changes(truth, own).values().sum())?;
    is(scrape, "pinscope_kernel_policy", &[("policy", own)], 1)?;
    is(scrape, "pinscope_judged_buffers_total", &[], all)?;
    is(scrape, "pinscope_judged_buffers_total", &[("judged", "unjudged")], 0)?;
    let unserved: u64 = truth.iter().filter(|(key, _)| is_unserved(key)).map(|(_, buffers)| buffers).sum();
    is(scrape, "pinscope_policy_answers_total", &[], all - unserved)?;
    is(scrape, "pinscope_policy_answers_total", &[("answer", "agreed")], all - unserved)?;
    is(scrape, "pinscope_policy_unrelated_total", &[("why", "unserved")], unserved)?;
    is(scrape, "pinscope_policy_unrelated_total", &[], unserved)
}

/// Each question is in exactly one state; the audit's question has none.
fn states(scrape: &Scrape) -> anyhow::Result<()> {
    for question in ["Q1", "Q2", "Q3", "Q4", "Q5", "Q7"] {
        is(scrape, "pinscope_question_state", &[("question", question)], 1)?;
    }
    ensure!(!scrape.has("pinscope_question_state", &[("question", "Q6")]), "a state of the audit's question");
    Ok(())
}

/// The phases sum up to the whole, and every registration was watched for the lock.
fn on_request(context: &Context, scrape: &Scrape) -> anyhow::Result<()> {
    let measured = ["register", "update"];
    let sum = |name| measured.map(|operation| scrape.sum(name, &[("operation", operation)])).iter().sum::<f64>();
    let (parts, whole) =
        (scrape.sum("pinscope_phase_seconds_total", &[]), sum("pinscope_registration_duration_seconds_sum"));
    ensure!((parts - whole).abs() < 1e-6 && whole > 0.0, "the phases are {parts} s of {whole} s");
    let watched = scrape
        .samples("pinscope_mmap_lock_registrations_total")
        .find(|(labels, _)| label(labels, "lock") == Some("all"));
    match watched {
        Some((_, watched)) => {
            let all = sum("pinscope_registration_duration_seconds_count");
            ensure!((watched - all).abs() < 0.5, "{watched} of {all} were watched");
        }
        None => ensure!(context.kernel.version < LOCK_TRACEPOINTS, "waits for mmap_lock are missing"),
    }
    Ok(())
}

fn port_taken(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let arguments = ["daemon", "--attach", &context.attach, "--listen", &listen];
    pinscope::run(&arguments, Duration::from_mins(2))?.expect_error_line(&[&listen])?;
    Ok(Verdict::Passed)
}
