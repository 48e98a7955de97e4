//! Tests with a kernel or a unit that prevents some hooks.

use std::time::Duration;

use anyhow::ensure;

use super::{
    Cursor, START, Status, UNIT, configure, expect_entry, override_unit, port_is_closed, pristine, register,
    registered, scrape, succeed,
};
use crate::{
    context::Context,
    protocol::{Test, TestResult, Verdict},
    systemd::{run, wait_for},
};

pub fn tests() -> Vec<Test> {
    let time = Duration::from_mins(6);
    vec![
        Test::new("debian_degraded_serves_the_reason", degraded).within(time),
        Test::new("debian_strict_refuses", strict).within(time),
    ]
}

/// A function that cannot be hooked removes its own figures only.
const AVOIDED: &str = "avoid = [\"io_sqe_buffer_register\"]";

fn degraded(_: &Context) -> TestResult {
    pristine()?;
    succeed(&["systemctl", "start", UNIT])?;
    let whole = scrape()?;
    succeed(&["systemctl", "stop", UNIT])?;
    configure(AVOIDED)?;
    let cursor = Cursor::now()?;
    succeed(&["systemctl", "start", UNIT])?;
    let status = Status::of(UNIT)?;
    ensure!(status.is_active(), "it is {}", status.get("ActiveState"));
    let text = status.get("StatusText");
    ensure!(text.to_lowercase().contains("degraded"), "StatusText={text}");
    expect_entry(&cursor.entries(UNIT)?, 4, &["io_sqe_buffer_register"])?;
    let part = scrape()?;
    let reasons = |scrape: &crate::daemon::Scrape| scrape.sum("pinscope_degraded_reasons", &[]);
    ensure!(reasons(&part) > reasons(&whole), "degraded reasons {} and {} without", reasons(&whole), reasons(&part));
    // Unknown is not zero.
    ensure!(whole.samples("pinscope_buffer_vmas_count").count() == 1, "the whole service has no VMAs");
    ensure!(part.samples("pinscope_buffer_vmas_count").count() == 0, "VMAs without the hook that gives them");
    register(3)?;
    ensure!(registered()? == 3, "3 registrations are {}", registered()?);
    // Without the privilege to attach, nothing is counted, but the service still serves the reason.
    pristine()?;
    override_unit("CapabilityBoundingSet=CAP_BPF\nAmbientCapabilities=\nAmbientCapabilities=CAP_BPF")?;
    let cursor = Cursor::now()?;
    succeed(&["systemctl", "start", UNIT])?;
    let status = Status::of(UNIT)?;
    ensure!(status.is_active(), "without CAP_PERFMON it is {}", status.get("ActiveState"));
    ensure!(!status.get("StatusText").to_lowercase().contains("healthy"), "StatusText={}", status.get("StatusText"));
    expect_entry(&cursor.entries(UNIT)?, 4, &["CAP_PERFMON"])?;
    ensure!(scrape()?.samples("pinscope_registrations_total").count() == 0, "counts although nothing is attached");
    Ok(Verdict::Passed)
}

/// With `strict`, the same is an error that names what is missing.
fn strict(_: &Context) -> TestResult {
    pristine()?;
    configure("strict = true")?;
    succeed(&["systemctl", "start", UNIT])?;
    ensure!(registered()? == 0, "strict, but nothing is missing");
    succeed(&["systemctl", "stop", UNIT])?;
    configure(AVOIDED)?;
    let cursor = Cursor::now()?;
    ensure!(run(&["systemctl", "start", UNIT])?.code() != 0, "strict, and it starts with less");
    expect_entry(&cursor.entries(UNIT)?, 3, &["io_sqe_buffer_register"])?;
    let failed =
        wait_for(UNIT, START, "failed", |status| ["failed", "activating"].contains(&status.get("ActiveState")))?;
    ensure!(failed.get("ExecMainStatus") != "0", "it ended with success");
    ensure!(port_is_closed(), "it serves nevertheless");
    Ok(Verdict::Passed)
}
