//! Tests of the attribution of calls: in PID namespaces, and over generations of processes, next to unrelated processes
//! with the same id. Also of times, in a time namespace.
//!
//! The reference is the generator's own account, and the id that a process was made to get (`ns_last_pid`).

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{calls::WAITS_IN_THE_PIN, without_tracer};
use crate::{
    attempt::perform,
    clock,
    context::Context,
    generate,
    pinscope::{self, Running, piped},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{EMPTY, Request, Ring},
    scenario::Account,
    trace::Trace,
    user::{SERVICE, as_user_ahead},
};

/// Path of the command's account.
const ACCOUNT: &str = "/tmp/namespace-account.json";
/// Creates a PID namespace with its own `/proc`.
const UNSHARE: [&str; 4] = ["unshare", "-p", "-f", "--mount-proc"];
const TIME: Duration = Duration::from_mins(2);
/// Number of attempts to get a particular process id.
const TRIES: u32 = 5;

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 9] = [
        ("command", |context| command(context, 1)),
        ("command_nested", |context| command(context, 2)),
        ("process", process),
        ("outsiders", outsiders),
        ("orphans", orphans),
        ("earlier_children", earlier_children),
        ("generations", generations),
        ("strangers_with_old_numbers", strangers),
        ("clocks", clocks),
    ];
    let test = |(name, run): (&str, Case)| {
        Test::new(format!("namespaces_{name}"), move |context: &Context| match without_tracer(context) {
            Some(verdict) => Ok(verdict),
            None => run(context),
        })
    };
    cases.into_iter().map(test).collect()
}

/// A process outside of the namespace that registers continuously, under a name of its own.
struct Decoy(Running);

impl Decoy {
    fn start() -> anyhow::Result<Self> {
        const NAME: &str = "/tmp/decoy";
        if !Path::new(NAME).exists() {
            symlink(std::env::current_exe()?, NAME)?;
        }
        let mut command = Command::new(NAME);
        command.args(["gen", "--out", "/dev/null", "steady", "--seconds", "100"]);
        Ok(Self(Running::start(piped(&mut command))?))
    }
}

/// Runs a shell command nested in this number of namespaces.
fn inside(levels: usize, words: &str) -> anyhow::Result<Report> {
    let mut all = UNSHARE.repeat(levels);
    all.extend(["sh", "-c", words]);
    let (program, arguments) = all.split_first().context("no words")?;
    let finished = Running::start(piped(Command::new(program).args(arguments)))?.finish(TIME)?.expect_code(0)?;
    Report::of(&finished)
}

/// Shell words that run pinscope with the generator.
fn report(context: &Context) -> String {
    format!("{} report --json --attach {}", pinscope::binary().display(), context.attach)
}

fn generator() -> anyhow::Result<String> {
    Ok(format!("{} gen --out {ACCOUNT}", std::env::current_exe()?.display()))
}

/// Shell words that give the next process this id.
fn before(number: u32) -> String {
    format!("echo {} >/proc/sys/kernel/ns_last_pid", number - 1)
}

fn processes(report: &Report) -> anyhow::Result<Vec<(Value, Value)>> {
    let processes = report.json()["processes"].as_array().context("no processes")?;
    Ok(processes.iter().map(|process| (process["comm"].clone(), process["pid"].clone())).collect())
}

/// A command in a namespace whose id equals that of a process outside.
fn command(context: &Context, levels: usize) -> TestResult {
    let decoy = Decoy::start()?;
    let number = decoy.0.id();
    // The command's own child gets the id. The trailing `:` keeps the shell from executing the generator in its own
    // process.
    let command = format!("{} && {} storm --threads 1 --count 300; :", before(number), generator()?);
    let words = format!("exec {} -- sh -c '{command}'", report(context));
    // Another process in the namespace may take the id. The comparison would then be invalid, so it is repeated.
    for _ in 0..TRIES {
        let report = inside(levels, &words)?;
        report.balanced(&generate::read(ACCOUNT)?)?;
        let account: Value = serde_json::from_str(&fs::read_to_string(ACCOUNT)?)?;
        let seen = processes(&report)?;
        ensure!(seen == [(json!("guest"), account["pid"].clone())], "{seen:?}, expected guest {}", account["pid"]);
        if account["pid"] == number {
            return Ok(Verdict::Passed);
        }
    }
    bail!("the command never got the number {number}");
}

/// `--pid` refers to the process with that id in the namespace.
fn process(context: &Context) -> TestResult {
    let decoy = Decoy::start()?;
    let number = decoy.0.id();
    let words = format!(
        "{} && {{ {} steady --seconds 60 & exec {} --pid {number} --duration 1s; }}",
        before(number),
        generator()?,
        report(context)
    );
    let seen = processes(&inside(1, &words)?)?;
    ensure!(seen == [(json!("guest"), json!(number))], "{seen:?}, expected guest {number}");
    Ok(Verdict::Passed)
}

/// A process in no namespace visible to pinscope has the host's id and is marked.
fn outsiders(context: &Context) -> TestResult {
    let decoy = Decoy::start()?;
    let seen = processes(&inside(1, &format!("exec {} --duration 1s", report(context)))?)?;
    let expected = (json!("decoy"), json!(format!("host:{}", decoy.0.id())));
    ensure!(seen.contains(&expected), "{seen:?}, expected {expected:?}");
    Ok(Verdict::Passed)
}

/// A descendant whose ancestors have all ended, in a session of its own, still counts as a descendant.
fn orphans(context: &Context) -> TestResult {
    let done = "/tmp/orphan-done";
    let _ = fs::remove_file(done);
    let orphan = format!("{} storm --threads 1 --count 300; : >{done}", generator()?);
    // The first shell's child ends at once, so its own child has no parent until another process adopts it.
    let words = format!("sh -c 'setsid sh -c \"sleep 0.5; {orphan}\" &' & until [ -e {done} ]; do sleep 0.1; done");
    let mut command = pinscope::command(&["report", "--json", "--attach", &context.attach, "--", "sh", "-c", &words]);
    let finished = Running::start(&mut command)?.finish(TIME)?.expect_code(0)?;
    Report::of(&finished)?.balanced(&generate::read(ACCOUNT)?)?;
    Ok(Verdict::Passed)
}

/// A shell's earlier child becomes pinscope's own child when the shell executes pinscope, and is not a descendant of
/// the command.
fn earlier_children(context: &Context) -> TestResult {
    drop(Decoy::start()?);
    let words = format!(
        "/tmp/decoy gen --out /dev/null steady --seconds 100 & exec {} -- {} storm --threads 1 --count 300",
        report(context),
        generator()?
    );
    inside(1, &words)?.balanced(&generate::read(ACCOUNT)?)?;
    Ok(Verdict::Passed)
}

/// Calls of tasks nested too deeply are not attributed to the command, and each is counted once as unattributed.
fn generations(context: &Context) -> TestResult {
    let deep = "/tmp/deep.sh";
    let script = format!(
        "#!/bin/sh\nif [ $1 -gt 0 ]; then sh $0 $(($1 - 1)); :; else {} storm --threads 1 --count 100; fi\n",
        generator()?
    );
    fs::write(deep, script)?;
    let mut command = pinscope::command(&["report", "--json", "--attach", &context.attach, "--", "sh", deep, "140"]);
    let finished = Running::start(&mut command)?.finish(TIME)?.expect_code(0)?;
    let (report, truth) = (Report::of(&finished)?, generate::read(ACCOUNT)?);
    let untold = report.json()["lost"]["descendants"].as_u64().context("no count of unattributed calls")?;
    ensure!(
        report.call_counts()?.all() == 0 && untold == truth.all(),
        "{untold} unattributed, expected {}",
        truth.all()
    );
    Ok(Verdict::Passed)
}

/// The command's processes have ended, and unrelated processes have got their ids.
fn strangers(context: &Context) -> TestResult {
    const MOST: &str = "/proc/sys/kernel/pid_max";
    let most = fs::read_to_string(MOST)?;
    // The kernel's minimum is some hundreds per CPU.
    let few = if fs::write(MOST, "700").is_ok() { 700 } else { 1024 };
    fs::write(MOST, few.to_string())?;
    let decoys =
        "until [ -e /tmp/strangers-done ]; do /tmp/decoy gen --out /dev/null storm --threads 1 --count 3; done";
    let _ = fs::remove_file("/tmp/strangers-done");
    drop(Decoy::start()?);
    let strangers = Running::start(piped(Command::new("sh").args(["-c", decoys])))?;
    // Each subshell is a process of its own.
    let words = "n=0; while [ $n -lt 2000 ]; do ( : ); n=$((n + 1)); done; sleep 1";
    let mut command = pinscope::command(&["report", "--json", "--attach", &context.attach, "--", "sh", "-c", words]);
    let finished = Running::start(&mut command).and_then(|running| running.finish(TIME));
    fs::write("/tmp/strangers-done", "")?;
    fs::write(MOST, most)?;
    strangers.finish(TIME)?;
    let report = Report::of(&finished?.expect_code(0)?)?;
    ensure!(
        report.call_counts()?.all() == 0,
        "strangers' calls were taken for the command's: {}",
        report.json()["processes"]
    );
    Ok(Verdict::Passed)
}

/// For the service's user in a time namespace, calls are from when they were by the wall clock, and as old as they are.
fn clocks(context: &Context) -> TestResult {
    const AHEAD: u64 = 250_000;
    const HANGS: &str = "/tmp/namespace-hang.json";
    // Debian's perf_event_paranoid refuses kprobes without it.
    let kprobes: &[_] = if context.attach == "kprobe" { &["CAP_SYS_ADMIN"] } else { &[] };
    let by = as_user_ahead(&[SERVICE, kprobes].concat(), AHEAD)?;
    let mut command = Command::new(&by[0]);
    command.args(&by[1..]).arg(pinscope::binary()).args(["-v", "trace", "--json", "--attach", &context.attach]);
    let trace = Trace::start_command(piped(&mut command))?;
    let ring = Ring::new()?;
    let begin = clock::wall();
    let call = perform(context, &ring, Request::Register(&[EMPTY]))?;
    let end = clock::wall();
    // On a ring that waits for a read, or for a page in a pin.
    let waits_in_the_pin = context.kernel.version >= WAITS_IN_THE_PIN;
    let scenario = if waits_in_the_pin { "held_ring" } else { "pending_read" };
    let mut hanging = Command::new(std::env::current_exe()?)
        .args(["scenario", "--out", HANGS, "--seconds", "4", scenario])
        .stdout(Stdio::null())
        .spawn()?;
    thread::sleep(Duration::from_secs(2));
    let record = trace.records_of(&[call]);
    let ended = trace.interrupt()?;
    let now = clock::monotonic();
    ensure!(hanging.wait()?.success(), "the scenario failed");
    let time = record?[0].time.clone().unwrap_or_default();
    // The two clocks are read one after the other.
    ensure!(begin[..21] <= time[..21] && time[..21] <= end[..21], "{time}, and the call was from {begin} to {end}");
    let hung_since = Account::read(HANGS)?.more["unregister"]["started_ns"].as_u64().context("no beginning")?;
    let long = ended.end["under_way"]["long"].as_array().with_context(|| format!("{}", ended.end))?;
    let call = long.iter().find(|call| call["operation"] == "unregister").with_context(|| format!("{long:?}"))?;
    let age = call["age_ns"].as_u64().context("no age")?;
    ensure!(age > 1_000_000_000 && age <= now - hung_since, "{call} began {} ns before", now - hung_since);
    ended.finished.expect_code(0)?;
    Ok(Verdict::Passed)
}
