//! Error conditions as a user sees them: one line, and an exit code.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    attempt::perform,
    cgroup::{self, Cgroup},
    context::Context,
    contract,
    daemon::Daemon,
    kernel::Version,
    pinscope::{self, Finished, Running},
    process,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::Space,
    sys::PAGE,
    trace::Trace,
};

const TIME: Duration = Duration::from_mins(2);
/// From linux/capability.h.
const CAP_SYS_ADMIN: i32 = 21;
const CAP_SYS_RESOURCE: i32 = 24;
const CAP_PERFMON: i32 = 38;
const CAP_BPF: i32 = 39;

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 20] = [
        ("bad_option", bad_option),
        ("bad_values", bad_values),
        ("no_such_process", no_such_process),
        ("no_such_command", no_such_command),
        ("no_tracefs", no_tracefs),
        ("small_memlock", small_memlock),
        ("closed_pipe", closed_pipe),
        ("command_exit_code", command_exit_code),
        ("command_killed", command_killed),
        ("command_interrupted", command_interrupted),
        ("avoided_function", avoided_function),
        ("interrupted_start", interrupted_start),
        ("full_stderr", full_stderr),
        ("few_descriptors", few_descriptors),
        ("few_processes", few_processes),
        ("nothing_more_is_read", nothing_more_is_read),
        ("doctor", doctor),
        ("doctor_agrees", doctor_agrees),
        ("ftrace_switched_off", ftrace_switched_off),
        ("kprobes_switched_off", kprobes_switched_off),
    ];
    cases
        .into_iter()
        .map(|(name, run)| {
            let test = move |context: &Context| match without_tracer(context) {
                Some(verdict) => Ok(verdict),
                None => run(context),
            };
            Test::new(format!("cli_{name}"), test).within(Duration::from_mins(5))
        })
        .collect()
}

fn report(context: &Context, more: &[&str]) -> anyhow::Result<Finished> {
    let arguments = [&["report", "--json", "--attach", &context.attach], more].concat();
    pinscope::run(&arguments, TIME)
}

fn passed(result: anyhow::Result<()>) -> TestResult {
    result.map(|()| Verdict::Passed)
}

fn bad_option(context: &Context) -> TestResult {
    report(context, &["--no-such-option"])?.expect_error_line(&["--no-such-option"])?;
    passed(pinscope::run(&["no-such-subcommand"], TIME)?.expect_error_line(&["no-such-subcommand"]))
}

fn bad_values(context: &Context) -> TestResult {
    report(context, &["--duration", "soon"])?.expect_error_line(&["soon"])?;
    report(context, &["--pid", "0"])?.expect_error_line(&["0"])?;
    report(context, &["--pid", "many"])?.expect_error_line(&["many"])?;
    report(context, &["--attach", "by-hand"])?.expect_error_line(&[])?;
    passed(report(context, &["--avoid", ""])?.expect_error_line(&[]).or_else(|error| {
        // An empty name avoids nothing. The session may then start and wait for a signal.
        ensure!(error.to_string().contains("still running"), "{error:#}");
        Ok(())
    }))
}

fn no_such_process(context: &Context) -> TestResult {
    passed(report(context, &["--pid", "4194301"])?.expect_error_line(&["4194301"]))
}

fn no_such_command(context: &Context) -> TestResult {
    let finished = report(context, &["--", "/no/such/command"])?;
    passed(finished.expect_error_line(&["/no/such/command"]))
}

/// tracefs is not mounted in this guest. pinscope neither needs it nor mounts it where others see it.
fn no_tracefs(context: &Context) -> TestResult {
    let before = fs::read_to_string("/proc/mounts")?;
    ensure!(!before.contains("tracefs"), "tracefs is mounted here");
    let trace = Trace::start(context, &[])?;
    let during = fs::read_to_string("/proc/mounts")?;
    trace.interrupt()?.finished.expect_code(0)?;
    let after = fs::read_to_string("/proc/mounts")?;
    ensure!(before == during && before == after, "the mounts changed:\n{before}\n{during}\n{after}");
    Ok(Verdict::Passed)
}

/// 64 KiB, the default of distributions. root raises it, and from 5.11 on it does not matter.
fn small_memlock(context: &Context) -> TestResult {
    let mut command = pinscope::command(&["trace", "--json", "--attach", &context.attach]);
    process::limit_memlock(&mut command, 64 << 10);
    let trace = Trace::start_command(&mut command)?;
    trace.interrupt()?.finished.expect_code(0)?;
    Ok(Verdict::Passed)
}

/// As in `pinscope trace | head -1`: it ends silently when nobody reads its output any more.
fn closed_pipe(context: &Context) -> TestResult {
    let mut command = pinscope::command(&["trace", "--json", "--attach", &context.attach]);
    let mut child = command.spawn()?;
    crate::watchdog::adopt(child.id());
    let mut reader = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    drop(reader);
    let started = Instant::now();
    let finished = Running::adopt(child).finish(Duration::from_secs(5)).context("after its pipe was closed")?;
    println!("    ended {:.2} s after its reader", started.elapsed().as_secs_f64());
    ensure!(line.contains("\"start\""), "the first line is {line:?}");
    ensure!(finished.stderr.is_empty(), "standard error: {}", finished.stderr);
    finished.expect_code(0)?;
    Ok(Verdict::Passed)
}

fn command_exit_code(context: &Context) -> TestResult {
    for code in [0, 1, 7, 255] {
        let finished = report(context, &["--", "/bin/sh", "-c", &format!("exit {code}")])?;
        ensure!(finished.stderr.is_empty(), "standard error: {}", finished.stderr);
        finished.expect_code(code)?;
    }
    Ok(Verdict::Passed)
}

fn command_killed(context: &Context) -> TestResult {
    report(context, &["--", "/bin/sh", "-c", "kill -9 $$"])?.expect_code(128 + libc::SIGKILL)?;
    report(context, &["--", "/bin/sh", "-c", "kill -15 $$"])?.expect_code(128 + libc::SIGTERM)?;
    Ok(Verdict::Passed)
}

/// Ctrl-C during a slow command: both end, and the report is printed.
fn command_interrupted(context: &Context) -> TestResult {
    let mut command = pinscope::command(&["trace", "--json", "--attach", &context.attach, "--", "/bin/sleep", "60"]);
    let trace = Trace::start_command(&mut command)?;
    let started = Instant::now();
    let ended = trace.interrupt()?;
    ensure!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    ended.finished.expect_code(128 + libc::SIGINT)?;
    Ok(Verdict::Passed)
}

/// A signal during the start ends pinscope at once, by that signal and with one line, and the command does not run.
fn interrupted_start(context: &Context) -> TestResult {
    let command: &[&str] = &["--", "/bin/sh", "-c", "echo BEGUN"];
    let cases: [(&[&str], i32); 4] = [
        (&["report"], libc::SIGINT),
        (&["trace", "--json"], libc::SIGTERM),
        (&[&["audit"], command].concat(), libc::SIGHUP),
        (&["daemon", "--listen", "127.0.0.1:0"], libc::SIGTERM),
    ];
    for (arguments, signal) in cases {
        let [name, rest @ ..] = arguments else { continue };
        let arguments = [&["-vv", name, "--attach", &context.attach], rest].concat();
        let running = Running::start(&mut pinscope::command(&arguments))?;
        let deadline = Instant::now() + TIME;
        while !running.stderr().contains("start: making the eBPF maps") {
            ensure!(Instant::now() < deadline, "{name} does not start: {}", running.stderr());
            thread::sleep(Duration::from_millis(2));
        }
        running.signal(signal);
        let signalled = Instant::now();
        let finished = running.finish(TIME)?;
        println!("    {name} ended {:.2} s after signal {signal}", signalled.elapsed().as_secs_f64());
        ensure!(finished.status.signal() == Some(signal), "{name}: {}", finished.words());
        ensure!(finished.stdout.is_empty() && !finished.stderr.contains("start: done"), "{name}: {}", finished.words());
        let said: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with("pinscope: ")).collect();
        ensure!(said == ["pinscope: interrupted while starting; nothing was measured"], "{name}: {said:?}");
    }
    Ok(Verdict::Passed)
}

/// Standard error is full: the exit codes do not change.
fn full_stderr(context: &Context) -> TestResult {
    let run = |arguments: &[&str]| {
        let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
        Running::start(pinscope::command(arguments).stderr(full))?.finish(TIME)
    };
    run(&["no-such-subcommand"])?.expect_code(2)?;
    run(&["report", "--attach", &context.attach, "--pid", "4194301"])?.expect_code(1)?;
    let finished = run(&["-vv", "trace", "--attach", &context.attach, "--", "/bin/sh", "-c", "exit 7"])?;
    finished.expect_code(7)?;
    Ok(Verdict::Passed)
}

/// With too low a limit of open files, one line says so and states the number needed; that number suffices. pinscope
/// raises the soft limit for itself, but not for the command.
fn few_descriptors(context: &Context) -> TestResult {
    let run = |soft, hard, more: &[&str]| {
        let arguments = [&["report", "--json", "--attach", &context.attach], more].concat();
        let mut command = pinscope::command(&arguments);
        process::limit_files(&mut command, soft, hard);
        Running::start(&mut command)?.finish(TIME)
    };
    let few = run(48, 48, &["--duration", "100ms"])?;
    few.expect_error_line(&["open files is 48", "ulimit -n"])?;
    ensure!(!few.stderr.contains("verifier"), "{}", few.words());
    let words = few.stderr.trim_end().trim_end_matches(" or more");
    let enough = words.rsplit(' ').next().context("no words")?.parse().with_context(|| few.words())?;
    println!("    {enough} open files suffice");
    let whole = run(enough, enough, &["--duration", "100ms"])?.expect_code(0)?;
    ensure!(whole.stderr.is_empty(), "{}", whole.words());
    run(48, 4096, &["--", "/bin/sh", "-c", "exit $(ulimit -n)"])?.expect_code(48)?;
    Ok(Verdict::Passed)
}

/// Room for pinscope, the process that waits for the command, and the command.
fn few_processes(context: &Context) -> TestResult {
    let controllers = format!("{}/cgroup.subtree_control", cgroup::ROOT);
    fs::write(controllers, "+pids").context("no controller of processes")?;
    let cgroup = Cgroup::new(cgroup::ROOT, "few-processes")?;
    fs::write(format!("{}/few-processes/pids.max", cgroup::ROOT), "3")?;
    let arguments = ["report", "--attach", &context.attach, "--", "/bin/sh", "-c", "exit 7"];
    let mut command = cgroup.command(&pinscope::binary(), &arguments);
    let finished = Running::start(pinscope::piped(&mut command))?.finish(TIME);
    cgroup.remove()?;
    let finished = finished?.expect_code(7)?;
    ensure!(finished.stderr.is_empty(), "{}", finished.words());
    Ok(Verdict::Passed)
}

/// Without the privileges to trace, pinscope fails before it reads the kernel's lists.
fn nothing_more_is_read(context: &Context) -> TestResult {
    let by_name = |name: &&str| CIRCUMSTANCES.iter().find(|(known, ..)| known == name);
    for (name, circumstance, words) in ["user namespace", "another user", "without /sys"].iter().filter_map(by_name) {
        for subcommand in ["report", "audit"] {
            let mut command = pinscope::command(&["-vv", subcommand, "--attach", &context.attach]);
            circumstance(&mut command);
            let started = Instant::now();
            let finished = Running::start(&mut command)?.finish(TIME)?.expect_code(1)?;
            println!("    {name}: {subcommand} ended after {:.2} s", started.elapsed().as_secs_f64());
            let read_on = finished.stderr.contains("reading why");
            ensure!(!read_on && words.iter().all(|word| finished.stderr.contains(word)), "{}", finished.words());
        }
    }
    Ok(Verdict::Passed)
}

/// A missing function: the other figures are measured, and the missing ones are marked as unknown.
fn avoided_function(context: &Context) -> TestResult {
    let pid = std::process::id().to_string();
    let mut arguments = vec!["--pid", &pid];
    for function in ["io_pin_pages", "pin_user_pages"] {
        arguments.extend(["--avoid", function]);
    }
    let trace = Trace::start(context, &arguments)?;
    let mut space = Space::new(8 * PAGE);
    let buffers = [Buffer { address: space.map_split(3)?, length: 3 * PAGE }];
    let call = perform(context, &Ring::new()?, Request::Register(&buffers))?;
    let record = trace.records_of(std::slice::from_ref(&call))?.remove(0);
    ensure!(record.result == "ok" && record.buffers == Some(1), "{record:?}");
    ensure!(record.duration_ns.is_some(), "the duration does not need the pin");
    let unknown = [record.pin_ns, record.rest_ns, record.minor_faults, record.lookups];
    ensure!(unknown.iter().all(Option::is_none), "unmeasured figures have values: {unknown:?}");
    let start = String::from_utf8_lossy(&trace.stdout()).lines().next().unwrap_or_default().to_owned();
    let start: Value = serde_json::from_str(&start)?;
    let said = start["degraded"].as_array().is_some_and(|reasons| !reasons.is_empty());
    ensure!(said, "nothing is reported as degraded: {start}");
    trace.interrupt()?.finished.expect_code(0)?;
    Ok(Verdict::Passed)
}

fn doctor(context: &Context) -> TestResult {
    let run = |arguments: &[&str]| Running::start(&mut pinscope::command(arguments));
    let text = run(&["doctor", "--attach", &context.attach])?;
    let json = run(&["doctor", "--json", "--attach", &context.attach])?;
    let (text, json) = (text.finish(TIME)?, json.finish(TIME)?);
    ensure!(text.code() == json.code(), "text ends with {}, JSON with {}", text.code(), json.code());
    ensure!(text.stdout.contains("io_sqe_buffers_register"), "the plan names no function\n{}", text.words());
    let value: Value = serde_json::from_str(&json.stdout).with_context(|| json.words())?;
    contract::kept("doctor", &value)?;
    // Since 5.17, everything can be answered. Before, something is degraded, and the exit code shows it.
    let whole = context.kernel.can_be_walked();
    ensure!((text.code() == 0) == whole, "exit code {} on {}\n{}", text.code(), context.kernel.release, text.words());
    Ok(Verdict::Passed)
}

/// Name, change to the command, and words of the error line where nothing can be measured.
type Circumstance = (&'static str, fn(&mut Command), &'static [&'static str]);

const MEMLOCK: &str = "64 KiB of locked memory that stay";
const NO_PERF_EVENTS: &str = "seccomp without perf_event_open(2)";

/// System-wide switches and lockdown have their own tests.
const CIRCUMSTANCES: [Circumstance; 10] = [
    ("user namespace", process::in_user_namespace, &["user namespace"]),
    (
        "another user",
        |command| {
            command.uid(65534).gid(65534);
        },
        &["CAP_BPF", "CAP_PERFMON"],
    ),
    (
        MEMLOCK,
        |command| {
            process::limit_memlock(command, 64 << 10);
            process::drop_capabilities(command, &[CAP_SYS_RESOURCE]);
        },
        &["memlock"],
    ),
    ("seccomp without bpf(2)", |command| process::refuse(command, libc::SYS_bpf), &["seccomp"]),
    (NO_PERF_EVENTS, |command| process::refuse(command, libc::SYS_perf_event_open), &[]),
    ("without /proc", |command| process::hide(command, c"/proc"), &[]),
    ("without /sys", |command| process::hide(command, c"/sys"), &["BTF", "/sys is not mounted"]),
    (
        "without CAP_SYS_ADMIN",
        |command| process::drop_capabilities(command, &[CAP_SYS_ADMIN]),
        &["CAP_SYS_ADMIN", "perf_event_paranoid"],
    ),
    ("without CAP_BPF", |command| process::drop_capabilities(command, &[CAP_SYS_ADMIN, CAP_BPF]), &["CAP_BPF"]),
    (
        "without CAP_PERFMON",
        |command| process::drop_capabilities(command, &[CAP_SYS_ADMIN, CAP_PERFMON]),
        &["CAP_PERFMON"],
    ),
];

/// doctor and report agree under all circumstances: everything, something or nothing is measured.
fn doctor_agrees(context: &Context) -> TestResult {
    let mut off = Vec::new();
    for (name, circumstance, words) in CIRCUMSTANCES {
        // If something can be measured, both take as long as a session, so irrelevant cases are skipped: locked memory
        // matters only before 5.11, and the filter is tested only where trampolines do not need the call.
        let matters = match name {
            MEMLOCK => context.kernel.version < Version(5, 11),
            NO_PERF_EVENTS => context.attach == "fentry",
            _ => true,
        };
        if !matters {
            continue;
        }
        match agrees(context, circumstance, words) {
            Ok(verdict) => println!("    {name}: {verdict}"),
            Err(error) => off.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(off.is_empty(), "{}", off.join("\n"));
    Ok(Verdict::Passed)
}

/// Returns the common result.
fn agrees(context: &Context, circumstance: fn(&mut Command), words: &[&str]) -> anyhow::Result<String> {
    let run = |arguments: &[&str]| {
        let mut command = pinscope::command(&[arguments, &["--attach", &context.attach]].concat());
        circumstance(&mut command);
        Running::start(&mut command)
    };
    let (report, doctor) = (run(&["report", "--json", "--duration", "100ms"])?, run(&["doctor", "--json"])?);
    let (report, doctor) = (report.finish(TIME)?, doctor.finish(TIME)?);
    if report.code() != 0 {
        report.expect_error_line(words)?;
        ensure!(doctor.code() == 4, "the doctor ends with {}\n{}", doctor.code(), report.words());
        return Ok(format!("nothing: {}", report.stderr.trim_end()));
    }
    let value: Value = serde_json::from_str(&report.stdout).with_context(|| report.words())?;
    let degraded = value["degraded"].as_array().context("no list of what is degraded")?;
    let expected = if degraded.is_empty() { 0 } else { 3 };
    ensure!(doctor.code() == expected, "the doctor ends with {}, and degraded are {degraded:?}", doctor.code());
    Ok(if degraded.is_empty() { "all".to_owned() } else { format!("{degraded:?}") })
}

fn ftrace_switched_off(context: &Context) -> TestResult {
    switched_off(context, "/proc/sys/kernel/ftrace_enabled", "kernel.ftrace_enabled")
}

fn kprobes_switched_off(context: &Context) -> TestResult {
    if context.attach != "kprobe" {
        return Ok(Verdict::Ignored("no kprobe is attached in this mode".into()));
    }
    let mounted = Command::new("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]).status()?;
    ensure!(mounted.success(), "debugfs was not mounted");
    let result = switched_off(context, "/sys/kernel/debug/kprobes/enabled", "kprobes/enabled");
    Command::new("umount").arg("/sys/kernel/debug").status()?;
    result
}

/// The hooks would attach and never fire, so nothing is attached, one line gives the reason, and everything works when
/// the switch is on again. Every guest fails on kernel warnings, so none occurred meanwhile.
fn switched_off(context: &Context, switch: &str, name: &str) -> TestResult {
    match fs::write(switch, "0") {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Ok(Verdict::Ignored(format!("this kernel cannot switch {name} off")));
        }
        written => written?,
    }
    let off = report(context, &["--duration", "200ms"]);
    let doctor = pinscope::run(&["doctor", "--attach", &context.attach], TIME);
    fs::write(switch, "1")?;
    off?.expect_error_line(&[name])?;
    let doctor = doctor?;
    ensure!(doctor.code() != 0 && doctor.stdout.contains(name), "doctor does not mention it\n{}", doctor.words());
    report(context, &["--duration", "200ms"])?.expect_code(0)?;
    Ok(Verdict::Passed)
}

/// A service that cannot trace exports the reason as a metric, and no figure that could be mistaken for zero.
fn locked_daemon(context: &Context) -> TestResult {
    let daemon = Daemon::start(context, &[])?;
    let scrape = daemon.scrape()?;
    let reasons: Vec<_> = scrape.samples("pinscope_degraded_reason").map(|(labels, _)| labels.to_lowercase()).collect();
    ensure!(reasons.iter().any(|reason| reason.contains("lockdown")), "no word of lockdown: {reasons:?}");
    let probes: Vec<_> = scrape.samples("pinscope_probe_attached").collect();
    ensure!(!probes.is_empty() && probes.iter().all(|(_, attached)| *attached == 0.0), "probes: {probes:?}");
    for counted in ["pinscope_registrations_total", "pinscope_coverage_ratio", "pinscope_registration_vmas_count"] {
        let samples: Vec<_> = scrape.samples(counted).collect();
        ensure!(samples.is_empty(), "{counted} of a service that sees nothing: {samples:?}");
    }
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// Tests for a guest booted with lockdown=confidentiality: nothing can be traced, and pinscope gives the reason.
pub fn lockdown() -> Vec<Test> {
    let case = |name: &str, arguments: &'static [&'static str]| {
        Test::new(format!("lockdown_{name}"), move |_| {
            passed(pinscope::run(arguments, TIME)?.expect_error_line(&["lockdown"]))
        })
    };
    vec![
        case("report", &["report", "--duration", "1"]),
        case("trace", &["trace", "--duration", "1"]),
        case("daemon_strict", &["daemon", "--strict", "--listen", "127.0.0.1:0"]),
        Test::new("lockdown_daemon_serves_the_reason", locked_daemon),
        Test::new("lockdown_doctor_agrees", |context| {
            println!("    lockdown: {}", agrees(context, |_| (), &["lockdown"])?);
            Ok(Verdict::Passed)
        }),
        Test::new("lockdown_doctor", |_| {
            let finished = pinscope::run(&["doctor"], TIME)?;
            ensure!(finished.code() != 0, "doctor finds nothing wrong\n{}", finished.words());
            ensure!(finished.stdout.to_lowercase().contains("lockdown"), "no word of lockdown\n{}", finished.words());
            Ok(Verdict::Passed)
        }),
    ]
}
