//! The daemon under a service manager: an unprivileged user with two capabilities.

use std::{process::Command, time::Duration};

use anyhow::ensure;

use super::without_tracer;
use crate::{
    attempt::perform,
    context::Context,
    daemon::{Daemon, Scrape},
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    user::{SERVICE, as_user, of_threads},
};

/// Since this kernel, an open map can be read without CAP_BPF, whatever `kernel.unprivileged_bpf_disabled` says.
const READS_ARE_FREE: Version = Version(5, 19);
/// `1 << 39`, as printed in /proc/PID/status.
const CAP_BPF: &str = "0000008000000000";
const NONE: &str = "0000000000000000";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("service_as_a_user_drops_capabilities", drops).within(Duration::from_mins(3)),
        Test::new("service_as_root_drops_capabilities", root_drops),
        Test::new("service_without_privileges_serves_the_reason", without_privileges),
        Test::new("service_strict_fails_without_privileges", strict),
    ]
}

/// Whether two capabilities suffice. They do for fentry; for kprobes, Debian's perf_event_paranoid requires
/// CAP_SYS_ADMIN.
fn is_enough(context: &Context) -> bool {
    context.attach != "kprobe"
}

fn drops(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if !is_enough(context) {
        return Ok(Verdict::Ignored("kprobes need CAP_SYS_ADMIN here".into()));
    }
    drop(context.take_session());
    let daemon = Daemon::start_as(context, &[], &as_user(SERVICE)?)?;
    counts(context, &daemon)?;
    let left = left(context);
    for (line, wanted) in [("CapEff", left), ("CapPrm", left), ("CapInh", NONE), ("CapAmb", NONE), ("NoNewPrivs", "1")]
    {
        let threads = of_threads(daemon.id(), line)?;
        ensure!(threads.iter().all(|held| held == wanted), "{line} of its threads: {threads:?}, not {wanted}");
    }
    ensure!(of_threads(daemon.id(), "Uid")?.iter().all(|uid| uid.starts_with("65534")), "not the user");
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// Capabilities that the daemon has to keep on this kernel.
fn left(context: &Context) -> &'static str {
    if context.kernel.version < READS_ARE_FREE { CAP_BPF } else { NONE }
}

fn root_drops(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    drop(context.take_session());
    let daemon = Daemon::start(context, &[])?;
    counts(context, &daemon)?;
    for (line, wanted) in [("CapEff", left(context)), ("CapPrm", left(context)), ("CapBnd", NONE)] {
        let threads = of_threads(daemon.id(), line)?;
        ensure!(threads.iter().all(|held| held == wanted), "{line} of its threads: {threads:?}, not {wanted}");
    }
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// A registration after the capabilities were dropped is counted.
fn counts(context: &Context, daemon: &Daemon) -> anyhow::Result<()> {
    let before = daemon.scrape()?;
    let mut space = Space::new(16 * PAGE);
    let buffer = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    for _ in 0..5 {
        perform(context, &Ring::new()?, Request::Register(&buffer))?;
    }
    let after = daemon.scrape()?;
    for name in ["pinscope_registrations_total", "pinscope_ledger_calls_total"] {
        let of = |scrape: &Scrape| scrape.sum(name, &[("operation", "register")]);
        ensure!((of(&after) - of(&before) - 5.0).abs() < 0.5, "{name} grew by {}", of(&after) - of(&before));
    }
    Ok(())
}

fn without_privileges(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start_as(context, &[], &as_user(&[])?)?;
    let scrape = daemon.scrape()?;
    let probes: Vec<_> = scrape.samples("pinscope_probe_attached").collect();
    ensure!(!probes.is_empty() && probes.iter().all(|(_, attached)| *attached < 0.5), "{probes:?}");
    ensure!((scrape.sum("pinscope_info", &[("mode", "none")]) - 1.0).abs() < 0.5, "no mode none");
    ensure!((scrape.sum("pinscope_health", &[("status", "failed")]) - 1.0).abs() < 0.5, "not failed");
    ensure!(scrape.samples("pinscope_registrations_total").count() == 0, "unknown is no zero");
    let reasons: Vec<_> = scrape.samples("pinscope_degraded_reason").map(|(labels, _)| labels).collect();
    ensure!(reasons.iter().any(|labels| labels.contains("CAP_BPF")), "{reasons:?}");
    daemon.end()?;
    Ok(Verdict::Passed)
}

fn strict(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let words = as_user(&[])?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(pinscope::binary());
    command.args(["daemon", "--strict", "--listen", "127.0.0.1:0", "--attach", &context.attach]);
    let finished = Running::start(pinscope::piped(&mut command))?.finish(Duration::from_secs(40))?;
    finished.expect_code(1)?.expect_error_line(&["--strict", "CAP_BPF"])?;
    Ok(Verdict::Passed)
}
