//! Calls of which one buffer is accepted and another refused: each buffer has its own result. Also in a daemon, where
//! the pin represents its buffer, and a refusal before the pin is not seen.

use std::time::Duration;

use anyhow::ensure;

use super::without_tracer;
use crate::{
    context::Context,
    daemon::{Daemon, Scrape},
    errno::result_name,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
};

pub fn tests() -> Vec<Test> {
    vec![Test::new("daemon_reports_each_buffers_result", in_a_daemon).within(Duration::from_mins(3))]
}

/// Numbers of buffers: registered by the kernel, pinned but released within their call, and refused for their memory.
#[derive(Clone, Copy)]
struct Truth {
    anon: u32,
    let_go: u32,
    file: u32,
}

fn in_a_daemon(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("walk over a buffer's VMAs", Version(5, 17)) {
        return Ok(Verdict::Ignored(why));
    }
    let daemon = Daemon::start(context, &[])?;
    let truth = mixed_calls()?;
    let scrape = daemon.scrape()?;
    daemon.end()?;
    is(&scrape, "pinscope_backing_buffers_total", &[("class", "anon"), ("outcome", "ok")], truth.anon)?;
    is(&scrape, "pinscope_backing_buffers_total", &[("class", "anon"), ("outcome", "failed")], truth.let_go)?;
    is(&scrape, "pinscope_backing_buffers_total", &[("class", "file"), ("outcome", "ok")], 0)?;
    is(&scrape, "pinscope_backing_buffers_total", &[("class", "file"), ("outcome", "failed")], truth.file)?;
    is(&scrape, "pinscope_policy_answers_total", &[("answer", "agreed")], truth.anon + truth.file)?;
    is(&scrape, "pinscope_policy_answers_total", &[("answer", "accepted_though_refused")], 0)?;
    is(&scrape, "pinscope_policy_answers_total", &[("answer", "refused_though_accepted")], 0)?;
    Ok(Verdict::Passed)
}

fn is(scrape: &Scrape, name: &str, labels: &[(&str, &str)], expected: u32) -> anyhow::Result<()> {
    let seen = scrape.sum(name, labels);
    ensure!((seen - f64::from(expected)).abs() < 0.5, "{name} {labels:?} is {seen}, expected {expected}");
    Ok(())
}

fn mixed_calls() -> anyhow::Result<Truth> {
    let mut space = Space::new(16 * PAGE);
    let good = Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE };
    let refused = Buffer { address: space.map(Kind::Ext4, PAGE)?, length: PAGE };
    let table = Ring::new()?;
    expect(&table, Request::Register2(&[EMPTY; 4]), &["ok"])?;
    // An update returns the number of processed slots: here the one that it cleared.
    expect(&table, Request::Update(0, &[EMPTY, refused]), &["ok"])?;
    expect(&table, Request::Update(0, &[good, refused]), &["ok"])?;
    expect(&table, Request::Update(0, &[refused]), &["EFAULT", "EOPNOTSUPP"])?;
    let oversized = Buffer { address: good.address, length: (1 << 40) + PAGE };
    let nowhere = Buffer { address: 0, length: PAGE };
    for bad in [Buffer { length: 0, ..good }, nowhere, oversized] {
        // Some kernels return EINVAL for excessive length.
        expect(&Ring::new()?, Request::Register(&[good, bad]), &["EFAULT", "EINVAL"])?;
    }
    expect(&Ring::new()?, Request::Register(&[good, refused, good]), &["EFAULT", "EOPNOTSUPP"])?;
    Ok(Truth { anon: 1, let_go: 4, file: 4 })
}

fn expect(ring: &Ring, request: Request<'_>, expected: &[&str]) -> anyhow::Result<()> {
    let answer = result_name(ring.call(request).ret);
    ensure!(expected.contains(&answer.as_str()), "{request:?} is answered {answer}, not {expected:?}");
    Ok(())
}
