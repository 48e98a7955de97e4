//! Tests of reloading a changed configuration, valid or invalid, in a running service.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;

use super::{
    ADDRESS, CONFIG, Cursor, Status, UNIT, configure, expect_entry, fresh, original_configuration, register,
    registered, scrape, succeed,
};
use crate::{
    context::Context,
    http,
    protocol::{Test, TestResult, Verdict},
    systemd::{run, wait_for},
};

pub fn tests() -> Vec<Test> {
    let time = Duration::from_mins(6);
    vec![
        Test::new("debian_reload", reload).within(time),
        Test::new("debian_reload_of_a_bad_file", bad_file).within(time),
    ]
}

/// A changed listening address, which takes effect on reload.
const SECOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9758);

/// Options that can change at run time take effect; options that need a restart are named in the log; counters
/// continue.
fn reload(_: &Context) -> TestResult {
    let before = fresh()?;
    register(5)?;
    configure(&format!("listen = [\"{ADDRESS}\", \"{SECOND}\"]\nrings = true"))?;
    let cursor = Cursor::now()?;
    succeed(&["systemctl", "reload", UNIT])?;
    let after = settled()?;
    ensure!(after.is_active() && after.main_pid() == before.main_pid(), "the process did not go on");
    let said = cursor.entries(UNIT)?;
    // Rings need programs that would have to be loaded again.
    expect_entry(&said, 4, &["rings", "restart"])?;
    let now = registered()?;
    ensure!(now == 5, "5 registrations are {now} after a reload");
    register(1)?;
    ensure!(registered()? == 6, "registrations after a reload are not counted");
    ensure!(scrape()?.samples("pinscope_ring_age_seconds_count").count() == 0, "rings are followed without a restart");
    let second = || http::get(SECOND, "/metrics", Duration::from_secs(20));
    ensure!(second()?.contains("pinscope_info{"), "the second address serves no metrics");
    succeed(&["systemctl", "restart", UNIT])?;
    ensure!(
        scrape()?.samples("pinscope_ring_age_seconds_count").count() == 1,
        "rings are not followed after a restart"
    );
    second()?;
    original_configuration()?;
    succeed(&["systemctl", "reload", UNIT])?;
    settled()?;
    ensure!(second().is_err(), "an address that the configuration no longer has is served");
    Ok(Verdict::Passed)
}

/// An invalid file: the error and its place are logged once, and the service keeps its configuration.
fn bad_file(_: &Context) -> TestResult {
    let before = fresh()?;
    register(4)?;
    let text = fs::read_to_string(CONFIG)?;
    let line = text.lines().count() + 2;
    configure("ringz = true")?;
    let cursor = Cursor::now()?;
    let reloaded = run(&["systemctl", "reload", UNIT])?;
    let after = settled()?;
    ensure!(after.is_active() && after.main_pid() == before.main_pid(), "the process did not go on");
    let place = format!("{CONFIG}:{line}");
    let said = cursor.entries(UNIT)?;
    expect_entry(&said, 4, &[&place, "ringz"])?;
    let status = after.get("StatusText").to_owned();
    ensure!(reloaded.code() != 0 || status.contains("ringz") || status.contains(CONFIG), "StatusText={status}");
    register(1)?;
    ensure!(registered()? == 5, "5 registrations are {}", registered()?);

    // The corrected file takes effect, and the error is not repeated.
    fs::write(CONFIG, text)?;
    succeed(&["systemctl", "reload", UNIT])?;
    let after = settled()?;
    ensure!(!after.get("StatusText").contains("ringz"), "StatusText={}", after.get("StatusText"));
    ensure!(registered()? == 5, "the counters decreased");
    // A start with an invalid file fails, and systemd does not retry it forever.
    configure("ringz = true")?;
    let cursor = Cursor::now()?;
    ensure!(run(&["systemctl", "restart", UNIT])?.code() != 0, "it starts with a file that it cannot follow");
    let failed = Status::of(UNIT)?;
    ensure!(failed.get("ActiveState") == "failed", "ActiveState={}", failed.get("ActiveState"));
    ensure!(failed.restarts() == 0, "systemd tries it again");
    expect_entry(&cursor.entries(UNIT)?, 3, &[&place, "ringz"])?;
    Ok(Verdict::Passed)
}

/// systemd before 253 does not know when a reload ends.
fn settled() -> anyhow::Result<Status> {
    std::thread::sleep(Duration::from_secs(1));
    wait_for(UNIT, Duration::from_secs(30), "through with its reload", |status| {
        status.get("ActiveState") != "reloading"
    })
}
