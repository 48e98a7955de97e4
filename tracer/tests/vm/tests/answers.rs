//! Tests of the answers: workloads whose correct verdicts are known, and advice that disappears, together with its
//! cost, when it is followed.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    context::Context,
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    scenario::Account,
};

const TIME: Duration = Duration::from_mins(2);
const ACCOUNT: &str = "/tmp/guest-answers.json";

/// A scenario with a fault, the advice for it, and a figure that must fall by this factor when the advice is followed.
struct Advised {
    scenario: &'static [&'static str],
    rule: &'static str,
    figure: fn(&Seen) -> Option<u64>,
    factor: u64,
    /// First kernel with the figure.
    since: Version,
}

const ADVICE: [Advised; 8] = [
    Advised {
        scenario: &["page_faults", "--count", "2"],
        rule: "faulted_in",
        figure: |seen| seen.habit("minor_faults"),
        factor: 50,
        since: Version(5, 10),
    },
    Advised {
        scenario: &["small_pages", "--count", "2"],
        rule: "small_pages",
        figure: |seen| seen.habit("large_bvecs"),
        factor: 100,
        since: Version(6, 12),
    },
    Advised {
        scenario: &["small_iovecs", "--count", "2"],
        rule: "adjacent_iovecs",
        figure: |seen| seen.process("duration_ns"),
        factor: 2,
        since: Version(5, 10),
    },
    Advised {
        scenario: &["reregistration", "--count", "20"],
        rule: "registered_again",
        figure: |seen| seen.process("registrations"),
        factor: 20,
        since: Version(5, 10),
    },
    Advised {
        scenario: &["memlock", "--count", "2"],
        rule: "memlock",
        figure: |seen| seen.process("failed"),
        factor: 2,
        since: Version(5, 10),
    },
    Advised {
        scenario: &["many_rings", "--count", "20"],
        rule: "registered_elsewhere",
        figure: |seen| seen.process("buffers"),
        factor: 20,
        since: Version(6, 12),
    },
    Advised {
        scenario: &["many_vmas", "--count", "4", "--vmas", "512", "--untouched"],
        rule: "many_vmas",
        figure: |seen| seen.process("vmas"),
        factor: 500,
        since: Version(5, 17),
    },
    Advised {
        scenario: &["shared_file", "--count", "2"],
        rule: "refused_mapping",
        figure: |seen| seen.process("failed"),
        factor: 2,
        since: Version(5, 17),
    },
];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("answers_set_up_or_run_time", set_up_or_run_time).within(TIME * 4),
        Test::new("answers_a_ring_that_was_there", a_ring_that_was_there).within(TIME * 3),
        Test::new("answers_by_cost", by_cost).within(TIME * 2),
        Test::new("answers_as_markdown", as_markdown),
        Test::new("answers_lookups_of_many_vmas", lookups_of_many_vmas).within(TIME * 3),
        Test::new("answers_advice", advice).within(TIME * 4),
    ]
}

/// The report on a scenario, and the scenario's own account.
struct Seen {
    report: Report,
    account: Account,
}

impl Seen {
    /// Entry of the scenario's process in a list of the report.
    fn of(&self, list: &str) -> Option<&Value> {
        self.report.json()[list].as_array()?.iter().find(|one| one["pid"] == self.account.pid)
    }

    fn process(&self, key: &str) -> Option<u64> {
        self.of("processes")?[key].as_u64()
    }

    fn habit(&self, key: &str) -> Option<u64> {
        self.of("processes")?["habits"][key].as_u64()
    }

    fn rules(&self) -> Vec<&str> {
        let advice = self.of("explanations").and_then(|told| told["advice"].as_array());
        advice.into_iter().flatten().filter_map(|one| one["rule"].as_str()).collect()
    }
}

/// Runs scenarios one after the other under one report.
fn see_all(context: &Context, scenarios: &[Vec<&str>]) -> anyhow::Result<Vec<Seen>> {
    let binary = std::env::current_exe()?;
    let path = |number: usize| format!("{ACCOUNT}.{number}");
    let run = |(number, scenario): (usize, &Vec<&str>)| {
        let _ = std::fs::remove_file(path(number));
        format!("{} scenario --out {} {}", binary.display(), path(number), scenario.join(" "))
    };
    let script: Vec<_> = scenarios.iter().enumerate().map(run).collect();
    let script = script.join(" && ");
    let arguments = ["report", "--json", "--explain", "--attach", &context.attach, "--", "/bin/sh", "-c", &script];
    let finished = pinscope::run(&arguments, TIME)?.expect_code(0)?;
    let report = Report::of(&finished)?;
    let accounts = (0..scenarios.len()).map(|number| Account::read(&path(number)));
    accounts.map(|account| Ok(Seen { report: report.clone(), account: account? })).collect()
}

/// Runs a scenario under a report.
fn see(context: &Context, scenario: &[&str]) -> anyhow::Result<Seen> {
    see_all(context, &[scenario.to_vec()])?.pop().context("nothing was seen")
}

fn verdict<'a>(seen: &'a Seen, id: &str, begins: &str) -> anyhow::Result<&'a str> {
    let answer = seen.report.answer(id)?;
    let verdict = answer["verdict"].as_str().with_context(|| format!("no verdict: {answer}"))?;
    ensure!(verdict.starts_with(begins), "{}: {begins:?} is expected: {verdict}", seen.account.scenario);
    Ok(verdict)
}

fn set_up_or_run_time(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let set_up = [
        vec!["setup_only", "--seconds", "1"],
        vec!["many_rings", "--count", "12"],
        vec!["empties_slots", "--count", "32"],
    ];
    let seen = see_all(context, &set_up)?.pop().context("nothing was seen")?;
    verdict(&seen, "Q1", "Set-up: 14 of 14 rings installed buffers only before their first request.")?;
    let seen = see(context, &["fills_slots", "--count", "64"])?;
    verdict(&seen, "Q1", "Set-up: 1 of 1 ring installed buffers only before their first request or into empty slots.")?;
    // On both sides of the limit of set-up.
    for scenario in [
        ["switch_sets", "--count", "20"],
        ["switch_sets", "--count", "120"],
        ["update_slots", "--count", "120"],
        ["refills_slots", "--count", "60"],
    ] {
        let seen = see(context, &scenario)?;
        verdict(&seen, "Q1", &format!("Run time: process guest (pid {}) switched buffer sets", seen.account.pid))?;
        rate(&seen)?;
        // Empty slots of a table that is filled later do not count as unknown.
        for id in if context.kernel.can_be_walked() { &["Q3", "Q4"][..] } else { &[] } {
            let answer = seen.report.answer(id)?;
            ensure!(answer["state"] == "answered", "{}: {answer}", scenario[0]);
        }
    }
    let seen = see(context, &["idle"])?;
    let answer = seen.report.answer("Q1")?;
    ensure!(answer["state"] == "unanswerable" && answer["verdict"].is_null(), "of an idle ring: {answer}");
    Ok(Verdict::Passed)
}

/// Compares the rate with the scenario's own clock.
fn rate(seen: &Seen) -> anyhow::Result<()> {
    let installs: Vec<_> = seen.account.calls.iter().filter(|call| call.installed()).collect();
    // Since the last call of the set-up.
    let set_up = installs.iter().filter(|call| !call.switched).count();
    let [first, .., last] = installs.get(set_up - 1..).unwrap_or_default() else { bail!("too few calls") };
    let rate = |span: u64| (installs.len() - set_up) as f64 * 1e9 / span as f64;
    let (slowest, fastest) = (rate(last.ended_ns - first.started_ns), rate(last.started_ns - first.ended_ns));
    let tables = seen.report.answer("Q1")?["evidence"]["tables"].as_array().context("no tables")?;
    let rings = tables.iter().find(|table| table["name"] == "rings").context("no table of rings")?;
    let told = rings["rows"][0]["rate_per_second"].as_f64().context("no rate")?;
    ensure!((slowest..=fastest).contains(&told), "{told} per second, expected {slowest} to {fastest}");
    Ok(())
}

/// A ring that worked before pinscope started and gets buffers once afterwards: whether this is set-up cannot be known.
fn a_ring_that_was_there(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let binary = std::env::current_exe()?;
    let mut server = Command::new(&binary)
        .args(["scenario", "--out", ACCOUNT, "pre_existing"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = server.id().to_string();
    // The scenario waits on its standard input after its ring has worked: system call 0 (`read`) of descriptor 0.
    let deadline = Instant::now() + TIME;
    while !std::fs::read_to_string(format!("/proc/{pid}/syscall"))?.starts_with("0 0x0 ") {
        ensure!(Instant::now() < deadline, "the scenario does not wait");
        thread::sleep(Duration::from_millis(5));
    }
    let arguments = ["-v", "report", "--json", "--attach", &context.attach, "--pid", &pid];
    let report = Running::start(&mut pinscope::command(&arguments))?;
    let deadline = Instant::now() + TIME;
    while !report.stderr().contains("attached") {
        ensure!(Instant::now() < deadline, "the report did not begin: {}", report.stderr());
        thread::sleep(Duration::from_millis(50));
    }
    server.stdin.take().context("no standard input")?.write_all(b"\n")?;
    ensure!(server.wait()?.success(), "the scenario failed");
    let finished = report.finish(TIME)?.expect_code(0)?;
    let seen = Seen { report: Report::of(&finished)?, account: Account::read(ACCOUNT)? };
    let ring = &seen.report.json()["rings"]["list"][0];
    ensure!(ring["first_age_ns"].is_null() && ring["fd"].is_null(), "an old ring has an age: {ring}");
    ensure!(ring["registers"] == 1 && ring["after_requests"] == 1, "{ring}");
    let answer = seen.report.answer("Q1")?;
    let why = answer["why"].to_string();
    ensure!(answer["state"] == "unanswerable" && why.contains("before pinscope"), "{answer}");
    Ok(Verdict::Passed)
}

/// Checks Q2 and Q3 against the scenario's figures: one VMA, then many, at the same size.
fn by_cost(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if !context.kernel.can_be_walked() {
        let seen = see(context, &["prefaulted", "--count", "2"])?;
        for id in ["Q3", "Q4", "Q5"] {
            let answer = seen.report.answer(id)?;
            ensure!(answer["state"] == "unanswerable", "{id} without a walk: {answer}");
        }
        return Ok(Verdict::Passed);
    }
    for vmas in [1, 4096] {
        let seen = see(context, &["many_vmas", "--count", "2", "--pages", "4096", "--vmas", &vmas.to_string()])?;
        verdict(&seen, "Q2", "GUP ")?;
        let told = verdict(&seen, "Q3", if vmas == 1 { "100% of 2 buffers" } else { "0.0% of 2 buffers" })?;
        ensure!(told.contains(&format!("guest (pid {})", seen.account.pid)), "{told}");
        let q3 = seen.report.answer("Q3")?;
        ensure!(q3["state"] == "answered" && seen.report.json()["largest_buffer"]["vmas"] == vmas, "{q3}");
    }
    Ok(Verdict::Passed)
}

/// Markdown for pasting into a mail: the questions with their verdicts, no line too long, and the same figures.
fn as_markdown(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let attach = context.attach.as_str();
    let scenario = [binary, "scenario", "--out", ACCOUNT, "setup_only", "--seconds", "0"];
    let arguments = [&["report", "--format", "markdown", "--attach", attach, "--"][..], &scenario].concat();
    let text = pinscope::run(&arguments, TIME)?.expect_code(0)?.stdout;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "# io_uring buffer registration",
        "## Q1 answered",
        "**Verdict:** Set-up: 1 of 1 ring installed buffers only before their first request.",
        "register: 1 call, 0 failed",
        "## Q6 Who else pins user pages, and of which mappings? `pinscope audit` answers it.",
    ] {
        ensure!(flat.contains(words), "no {words:?} in\n{text}");
    }
    if context.kernel.can_be_walked() {
        // 16 adjacent buffers in one mapping.
        let vmas = "100% of 16 buffers and 100% of 1 registration lay in a single VMA";
        ensure!(flat.contains(vmas), "no {vmas:?} in\n{text}");
    }
    ensure!(text.lines().all(|line| line.chars().count() <= 72), "a line of more than 72 columns:\n{text}");
    Ok(Verdict::Passed)
}

/// Many VMAs cost the look-ups of the pin. Without look-ups (present memory on the fast path), no advice may be given.
fn lookups_of_many_vmas(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("walk over a buffer's VMAs", Version(5, 17)) {
        return Ok(Verdict::Ignored(why));
    }
    let scenario = ["many_vmas", "--count", "4", "--vmas", "512"];
    let lookups = |seen: &Seen| seen.report.json()["lookups"].as_u64().context("no look-ups");
    let untouched = see(context, &[&scenario[..], &["--untouched"]].concat())?;
    let cured = see(context, &[&scenario[..], &["--untouched", "--cured"]].concat())?;
    let (before, after) = (lookups(&untouched)?, lookups(&cured)?);
    ensure!(before >= 4 * 512 && before >= after.max(1) * 100, "{before} look-ups, with one VMA {after}");
    ensure!(untouched.habit("many_vma_lookups") == Some(before), "{before} look-ups, all in pins of many VMAs");
    let there = see(context, &scenario)?;
    let fast = context.kernel.version >= Version(6, 10);
    ensure!((lookups(&there)? == 0) == fast, "{} look-ups for present memory", lookups(&there)?);
    ensure!(there.rules().contains(&"many_vmas") != fast, "{:?} for present memory", there.rules());
    Ok(Verdict::Passed)
}

fn advice(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let advised: Vec<_> = ADVICE.iter().filter(|advised| context.kernel.version >= advised.since).collect();
    let with = |more: &[&'static str]| -> Vec<Vec<&str>> {
        advised.iter().map(|advised| [advised.scenario, more].concat()).collect()
    };
    let (faults, cured) = (see_all(context, &with(&[]))?, see_all(context, &with(&["--cured"]))?);
    for (advised, (fault, cured)) in advised.iter().zip(faults.iter().zip(&cured)) {
        let name = advised.scenario[0];
        let (before, after) = (fault.rules(), cured.rules());
        ensure!(before.contains(&advised.rule), "{name}: {} is not advised, but {before:?}", advised.rule);
        ensure!(!after.contains(&advised.rule), "{name}: {} is still advised after it was followed", advised.rule);
        let figure = |seen: &Seen| (advised.figure)(seen).with_context(|| format!("{name}: no figure"));
        let (before, after) = (figure(fault)?, figure(cured)?);
        println!("    {name}: {before}, then {after}");
        ensure!(before >= after.max(1) * advised.factor, "{name}: {before} fell to {after} only");
    }
    Ok(Verdict::Passed)
}
