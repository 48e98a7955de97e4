//! A session: facts, plan, attached probes, and what they count from the moment all of them were there.

mod audit;
pub mod command;
mod daemon;
mod end;
mod known;
mod log;
mod report;
mod trace;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};

pub use self::{audit::audit, daemon::daemon, report::report, trace::trace};
use crate::{
    aggregate::{self, Snapshot},
    answer::{Context, Hook},
    cli::config::Scope,
    decode::{Clock, Known},
    kernel::{Facts, Sources},
    probe::{
        attach::{self, Attached, Options},
        health::{self, Health, HookState, Status},
        plan::{self, Plan, PlanError, Verdict, Wish},
        table,
    },
    sink::Meta,
    source::{maps, sample::Sample},
};

/// Probes at work.
pub struct Session {
    attached: Attached,
    plan: Plan,
    health: Health,
    known: Known,
    release: String,
    /// What was counted while the probes were being attached, one after the other: not this session's.
    baseline: Sample,
    /// `CLOCK_MONOTONIC` nanoseconds, as the records have.
    started_ns: u64,
    clock: Clock,
    processes: bool,
}

impl Session {
    /// Inspects the kernel, plans, attaches. Fails with one line where nothing can be measured.
    pub fn start(wish: &Wish, options: &Options) -> Result<Self> {
        let begun = Instant::now();
        let facts = Facts::gather(&Sources::default(), &table::wanted());
        let plan = plan::plan(&facts, wish);
        tracing::debug!("the kernel was looked at in {:?}", begun.elapsed());
        if plan.verdict() == Verdict::Nothing {
            bail!("cannot trace here: {}", fatal(&plan));
        }
        let attached = attach::attach(&plan, options)?;
        tracing::debug!("{} hooks were attached after {:?}", plan.hooks.len(), begun.elapsed());
        let health = health::health(&plan, &attached.results);
        if health.status == Status::Failed {
            bail!("no probe could be attached: {}", first_failure(&attached));
        }
        let processes = options.session.processes != 0;
        let known = known::known(&plan, &attached.results, &health, options);
        let baseline = maps::read(&attached.ebpf, processes).context("cannot read the figures")?;
        let release = facts.release.text;
        let (clock, started_ns) = clock();
        Ok(Self { attached, plan, health, known, release, baseline, started_ns, clock, processes })
    }

    /// What was counted since the session started.
    pub fn sample(&self) -> Result<Sample> {
        let mut now =
            maps::read(&self.attached.ebpf, self.processes).context("cannot read the figures")?.since(&self.baseline);
        now.elapsed_ns = clock().1.saturating_sub(self.started_ns);
        Ok(now)
    }

    /// The same, folded.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(aggregate::fold(&self.sample()?, &self.known))
    }

    /// What the outputs say about the session as a whole.
    pub fn meta(&self, scope: &Scope) -> Meta {
        Meta { started: self.clock.rfc3339(self.started_ns), ..meta(&self.release, self.mode(), scope) }
    }

    /// How the figures were made, as the answers to the questions say it.
    pub fn context(&self) -> Context {
        let attached = self.plan.hooks.iter().zip(&self.health.hooks);
        let attached = attached.filter(|(_, health)| health.state == HookState::Attached);
        let mut hooks: Vec<Hook> = Vec::new();
        for (hook, _) in attached {
            let hook = Hook { role: hook.role.name(), function: hook.function.clone() };
            // Entry and return are two programs.
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        Context {
            kernel: self.release.clone(),
            mode: self.mode().to_owned(),
            hooks,
            coalesces: self.plan.settings.kernel.folio_shift != 0,
        }
    }

    /// `fentry` or `kprobe`.
    pub fn mode(&self) -> &'static str {
        self.plan.mechanism.map_or("none", |mechanism| mechanism.name())
    }
}

/// What the outputs say of any session.
fn meta(release: &str, mode: &str, scope: &Scope) -> Meta {
    Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: release.to_owned(),
        mode: mode.to_owned(),
        scope: scope.shown(),
        command: scope.command.as_ref().map(|argv| {
            let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        }),
        ..Meta::default()
    }
}

/// All that stands in the way, in one line.
fn fatal(plan: &Plan) -> String {
    let fatal: Vec<_> = plan.errors.iter().filter(|error| error.is_fatal()).map(PlanError::to_string).collect();
    if fatal.is_empty() {
        "nothing on this kernel can be hooked; see pinscope doctor".to_owned()
    } else {
        fatal.join("; ")
    }
}

fn first_failure(attached: &Attached) -> String {
    let failure = attached.results.iter().find_map(|(program, result)| Some((program, result.as_ref().err()?)));
    failure.map_or_else(|| "the plan is empty".to_owned(), |(program, error)| format!("{program}: {error}"))
}

/// Both clocks now: how records' times are said, and `CLOCK_MONOTONIC` in nanoseconds (`bpf_ktime_get_ns`).
fn clock() -> (Clock, u64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    (Clock::new(SystemTime::now(), monotonic), u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX))
}
