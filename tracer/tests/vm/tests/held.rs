//! Tests of the phase in which the command waits for the probes: signals to it or to pinscope.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::without_tracer;
use crate::{
    context::Context,
    generate,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    user::{SERVICE, as_user},
};

/// Path of the command's account, which exists only if the command has started.
const ACCOUNT: &str = "/tmp/held-account.json";
const TIME: Duration = Duration::from_mins(2);

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 8] = [
        ("goes_on_by_no_signal", continued),
        ("does_not_outlive_a_killed_start", killed),
        ("does_not_begin_after_a_signal", ended),
        ("goes_with_a_session_that_ends_early", abandoned),
        ("is_kept_by_nohup", kept),
        ("has_no_capability_of_ours", capabilities),
        ("has_its_own_status", status),
        ("leaves_descendants", left_running),
    ];
    let test = |(name, run): (&str, Case)| {
        Test::new(format!("cli_held_{name}"), move |context: &Context| match without_tracer(context) {
            Some(verdict) => Ok(verdict),
            None => run(context),
        })
    };
    cases.into_iter().map(test).collect()
}

/// A starting report around the generator, in which the process that holds the command exists.
fn start(context: &Context) -> anyhow::Result<(Running, i32)> {
    let _ = fs::remove_file(ACCOUNT);
    let program = std::env::current_exe()?.display().to_string();
    let words = [&program, "gen", "--out", ACCOUNT, "storm", "--threads", "1", "--count", "300"];
    let mut command = pinscope::command(&["report", "--json", "--attach", &context.attach, "--"]);
    let running = Running::start(command.args(words))?;
    let children = format!("/proc/{0}/task/{0}/children", running.id());
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        let child = fs::read_to_string(&children).unwrap_or_default();
        if let Some(child) = child.split_whitespace().next() {
            return Ok((running, child.parse()?));
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("nothing holds the command");
}

fn send(process: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory; pinscope holds the process, and has not been waited for.
    unsafe { libc::kill(process, signal) };
}

fn continued(context: &Context) -> TestResult {
    let (running, holder) = start(context)?;
    for signal in [libc::SIGTSTP, libc::SIGCONT, libc::SIGCONT] {
        send(holder, signal);
    }
    let finished = running.finish(TIME)?.expect_code(0)?;
    Report::of(&finished)?.balanced(&generate::read(ACCOUNT)?)?;
    Ok(Verdict::Passed)
}

fn killed(context: &Context) -> TestResult {
    let (running, holder) = start(context)?;
    running.signal(libc::SIGKILL);
    running.finish(TIME)?;
    let begun = Instant::now();
    while Path::new(&format!("/proc/{holder}")).exists() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "process {holder} is still there");
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(!Path::new(ACCOUNT).exists(), "the command began");
    Ok(Verdict::Passed)
}

fn ended(context: &Context) -> TestResult {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let (running, _) = start(context)?;
        running.signal(signal);
        let finished = running.finish(TIME)?;
        // A signal before the handler was installed has killed it.
        if finished.code() != 128 + signal {
            finished.expect_error_line(&["was not started"])?;
        }
        ensure!(!Path::new(ACCOUNT).exists(), "the command began after signal {signal}");
    }
    Ok(Verdict::Passed)
}

/// When nobody reads the trace any more, its command does not continue alone.
fn abandoned(context: &Context) -> TestResult {
    let mark = format!("/tmp/abandoned-{}", std::process::id());
    let words = format!(
        "{} trace --attach {} -- sh -c 'echo $$ >{mark}; exec sleep 100' | head -n 1 >/dev/null",
        pinscope::binary().display(),
        context.attach
    );
    let mut command = Command::new("sh");
    Running::start(pinscope::piped(command.args(["-c", &words])))?.finish(TIME)?;
    let command = fs::read_to_string(&mark).context("the command did not begin")?;
    let begun = Instant::now();
    while Path::new(&format!("/proc/{}", command.trim())).exists() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "the command continues");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Verdict::Passed)
}

/// A hangup signal that was ignored at the start stays ignored.
fn kept(context: &Context) -> TestResult {
    let mut command = pinscope::command(&["-v", "report", "--attach", &context.attach]);
    // SAFETY: between fork and exec, there is a single system call.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut running = Running::start(&mut command)?;
    let begun = Instant::now();
    while !running.stderr().contains("attached") {
        ensure!(begun.elapsed() < TIME, "not attached");
        thread::sleep(Duration::from_millis(5));
    }
    running.signal(libc::SIGHUP);
    thread::sleep(Duration::from_millis(500));
    ensure!(running.is_running(), "a hangup that is ignored ended the session");
    running.signal(libc::SIGINT);
    running.finish(TIME)?.expect_code(0)?;
    Ok(Verdict::Passed)
}

fn capabilities(context: &Context) -> TestResult {
    // Debian's default does not allow kprobes for unprivileged users.
    if context.attach == "kprobe" {
        return Ok(Verdict::Ignored("an unprivileged user cannot attach kprobes".into()));
    }
    let words = as_user(SERVICE)?;
    let (program, before) = words.split_first().context("no words")?;
    let mut command = Command::new(program);
    command.args(before).arg(pinscope::binary()).args(["report", "--json", "--attach", &context.attach, "--"]);
    command.args(["/bin/sh", "-c", "grep CapAmb /proc/self/status"]);
    let finished = Running::start(pinscope::piped(&mut command))?.finish(TIME)?.expect_code(0)?;
    let held = finished.stdout.lines().find(|line| line.starts_with("CapAmb:")).context("no line of capabilities")?;
    ensure!(held.ends_with("0000000000000000"), "the command has {held}");
    Ok(Verdict::Passed)
}

/// Also as the first process of a namespace, where its own signal would not stop it.
fn status(context: &Context) -> TestResult {
    for (words, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("(sleep 0.2 &); exit 3", 3)] {
        let pinscope = pinscope::binary().display().to_string();
        let mut command = Command::new("unshare");
        command.args(["-p", &pinscope, "report", "--json", "--attach", &context.attach, "--", "/bin/sh", "-c", words]);
        let finished = Running::start(pinscope::piped(&mut command))?.finish(TIME)?;
        finished.expect_code(code).with_context(|| words.to_owned())?;
    }
    Ok(Verdict::Passed)
}

/// Three descendants continue, two of them as orphans: a daemon, and the process that it started.
fn left_running(context: &Context) -> TestResult {
    let script = "setsid sh -c 'sleep 9 & sleep 9 & wait' >/dev/null 2>&1 & sleep 0.3; exit 4";
    let words = ["report", "--json", "--attach", &context.attach, "--", "sh", "-c", script];
    let report = Report::of(&pinscope::run(&words, TIME)?.expect_code(4)?)?;
    ensure!(report.json()["left_running"] == 3, "{}", report.json()["left_running"]);
    let words = ["trace", "--attach", &context.attach, "--", "sh", "-c", "sleep 9 >/dev/null 2>&1 &"];
    let finished = pinscope::run(&words, TIME)?.expect_code(0)?;
    ensure!(finished.stderr.contains("1 descendant of the command still ran when it ended"), "{}", finished.stderr);
    Ok(Verdict::Passed)
}
