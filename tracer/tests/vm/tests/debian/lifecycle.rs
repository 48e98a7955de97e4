//! Start, stop, restart, watchdog and socket activation, and their journal entries.

use std::{thread, time::Duration};

use anyhow::ensure;

use super::{
    ADDRESS, Cursor, SOCKET, START, Status, UNIT, fresh, is_hooked, override_unit, port_is_closed, pristine, processes,
    register, registered, scrape, succeed,
};
use crate::{
    context::Context,
    http,
    protocol::{Test, TestResult, Verdict},
    systemd::wait_for,
};

pub fn tests() -> Vec<Test> {
    let time = Duration::from_mins(6);
    vec![
        Test::new("debian_is_active_when_it_serves", active_when_ready).within(time),
        Test::new("debian_journal", journal).within(time),
        Test::new("debian_restart_and_stop", restart_and_stop).within(time),
        Test::new("debian_watchdog_restarts_a_hung_service", watchdog).within(time),
        Test::new("debian_socket_activation", socket_activation).within(time),
    ]
}

/// systemd may report `active` only once a scrape is answered and everything is attached.
fn active_when_ready(_: &Context) -> TestResult {
    pristine()?;
    succeed(&["systemctl", "start", "--no-block", UNIT])?;
    let mut activating = 0;
    let status = wait_for(UNIT, START, "active", |status| {
        activating += u32::from(status.get("ActiveState") == "activating");
        status.is_active()
    })?;
    let scrape = scrape()?;
    ensure!(activating > 0, "it was active before the first check");
    ensure!(status.get("Type").starts_with("notify"), "Type={}", status.get("Type"));
    let attached: Vec<_> = scrape.samples("pinscope_probe_attached").collect();
    ensure!(!attached.is_empty(), "no probe is planned");
    ensure!(attached.iter().all(|(_, value)| *value > 0.5), "not attached yet: {attached:?}");
    ensure!(is_hooked()?, "the kernel's function is not hooked");
    let text = status.get("StatusText");
    ensure!(text.to_lowercase().contains("healthy"), "StatusText={text}");
    register(3)?;
    ensure!(registered()? == 3, "3 registrations after the start are {}", registered()?);
    Ok(Verdict::Passed)
}

/// Levels and fields use the journal's protocol; texts are plain; an idle service logs nothing.
fn journal(_: &Context) -> TestResult {
    const FEW: usize = 20;
    let before = Cursor::now()?;
    fresh()?;
    scrape()?;
    let started = before.entries(UNIT)?;
    ensure!(!started.is_empty(), "the journal has no entry about the start");
    ensure!(started.len() <= FEW, "{} entries for a start", started.len());
    for entry in &started {
        let json = entry.json();
        ensure!(entry.field("MESSAGE").is_some_and(|text| !text.is_empty()), "no plain text: {json}");
        ensure!(!json.to_string().contains("\\u001b"), "escape codes: {json}");
        ensure!(entry.priority().is_some(), "no level: {json}");
        ensure!(entry.field("SYSLOG_IDENTIFIER") == Some("pinscope"), "identifier: {json}");
        // Lines on standard error have no fields of their own.
        ensure!(entry.field("_TRANSPORT") == Some("journal"), "not the journal's own protocol: {json}");
        ensure!(entry.field("TARGET").is_some_and(|target| target.starts_with("pinscope")), "no target: {json}");
    }
    let serving = Cursor::now()?;
    for _ in 0..5 {
        scrape()?;
    }
    let said = serving.entries(UNIT)?;
    ensure!(said.is_empty(), "scrapes are logged: {}", said[0].json());
    Ok(Verdict::Passed)
}

fn restart_and_stop(_: &Context) -> TestResult {
    let first = fresh()?;
    register(2)?;
    succeed(&["systemctl", "restart", UNIT])?;
    let second = Status::of(UNIT)?;
    ensure!(second.is_active() && second.main_pid() != first.main_pid(), "the same process after a restart");
    ensure!(registered()? == 0, "a new process has counted {}", registered()?);
    register(1)?;
    ensure!(registered()? == 1, "after the restart one registration is {}", registered()?);
    ensure!(is_hooked()?, "the kernel's function is not hooked");

    succeed(&["systemctl", "stop", UNIT])?;
    let stopped = Status::of(UNIT)?;
    ensure!(stopped.get("ActiveState") == "inactive", "ActiveState={}", stopped.get("ActiveState"));
    ensure!(stopped.get("Result") == "success", "Result={}", stopped.get("Result"));
    ensure!(stopped.get("ExecMainStatus") == "0", "ExecMainStatus={}", stopped.get("ExecMainStatus"));
    ensure!(port_is_closed(), "the port is still open");
    ensure!(processes()?.is_empty(), "still there: {:?}", processes()?);
    // The kernel frees trampolines only when no task can be in them any more.
    let gone = (0..50).any(|_| {
        thread::sleep(Duration::from_millis(100));
        is_hooked().is_ok_and(|hooked| !hooked)
    });
    ensure!(gone, "the kernel still has its functions hooked");
    Ok(Verdict::Passed)
}

/// A stopped process feeds no watchdog, like one whose loop hangs.
fn watchdog(_: &Context) -> TestResult {
    const SECONDS: u64 = 12;
    pristine()?;
    // The package's own value must exist, but is too long for a test.
    let own = Status::of(UNIT)?;
    ensure!(!["", "0", "infinity"].contains(&own.get("WatchdogUSec")), "WatchdogUSec={}", own.get("WatchdogUSec"));
    override_unit(&format!("WatchdogSec={SECONDS}\nTimeoutAbortSec=10\nRestartSec=1"))?;
    let before = Cursor::now()?;
    succeed(&["systemctl", "start", UNIT])?;
    let first = Status::of(UNIT)?;
    // As long as it is fed, the service outlives the timeout.
    thread::sleep(Duration::from_secs(SECONDS + 3));
    let fed = Status::of(UNIT)?;
    ensure!(fed.main_pid() == first.main_pid() && fed.restarts() == 0, "restarted though nothing hung");

    // SAFETY: kill(2) touches no memory; systemd has not waited for the process, so its id is still valid.
    unsafe { libc::kill(first.main_pid() as i32, libc::SIGSTOP) };
    let restarted = wait_for(UNIT, Duration::from_secs(SECONDS) + START, "restarted", |status| {
        status.restarts() == 1 && status.is_active()
    })?;
    ensure!(restarted.main_pid() != first.main_pid(), "the process that hung is still there");
    let said = before.of_systemd(UNIT)?;
    ensure!(said.iter().any(|entry| entry.message().contains("Watchdog timeout")), "not by the watchdog");
    register(1)?;
    ensure!(registered()? == 1, "the restarted service does not count");
    Ok(Verdict::Passed)
}

/// systemd holds the port; the first request starts the service and is answered.
fn socket_activation(_: &Context) -> TestResult {
    pristine()?;
    succeed(&["systemctl", "start", SOCKET])?;
    let asleep = Status::of(UNIT)?;
    ensure!(asleep.get("ActiveState") == "inactive", "the socket alone starts it: {}", asleep.get("ActiveState"));
    ensure!(processes()?.is_empty(), "already there: {:?}", processes()?);
    let answer = http::get(ADDRESS, "/metrics", START)?;
    ensure!(answer.contains("pinscope_info{"), "the request that started it got no metrics: {answer}");
    let awake = Status::of(UNIT)?;
    ensure!(awake.is_active(), "it answered and is {}", awake.get("ActiveState"));
    register(2)?;
    ensure!(registered()? == 2, "2 registrations are {}", registered()?);
    // systemd keeps the socket during a restart of the service, so no client is refused.
    succeed(&["systemctl", "restart", "--no-block", UNIT])?;
    let answer = http::get(ADDRESS, "/metrics", START)?;
    ensure!(answer.contains("pinscope_info{"), "turned away at a restart");
    wait_for(UNIT, START, "another process", |status| status.is_active() && status.main_pid() != awake.main_pid())?;
    succeed(&["systemctl", "stop", SOCKET, UNIT])?;
    ensure!(port_is_closed(), "the port is still open");
    Ok(Verdict::Passed)
}
