//! `pinscope audit`: who takes hold of user pages, for a while or around a command.

use std::{io::Write, os::fd::OwnedFd, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, anyhow};

use super::{Opened, end::announce, report::width, setup::Setup, wall_clock};
use crate::{
    aggregate::audit::{self, Audit, Audited, Context},
    answer::Origin,
    cli::args,
    kernel::{Facts, addresses},
    probe::{
        audit::wanted,
        health::{self, Health, HookState},
        plan::{self, Outcome, Plan, Wish},
        progress::Progress,
        table::Role,
    },
    sample::audit::AuditSample,
    sink::{self, Meta},
    source::{audit as source, probes::Probes, runs},
};

/// Runs the session and prints what it saw; the exit code is the command's, where there is one.
pub async fn audit(arguments: &args::Audit) -> Result<ExitCode> {
    let complete = |wish| Wish { audit: true, lookups: false, ..wish };
    let Setup { scope, wish, mut end } = Setup::new(&arguments.scope, &arguments.probes, complete)?;
    let auditing = Auditing::start(&wish)?;
    let mut meta = super::meta(Origin::new(&auditing.release, auditing.mode()), &scope);
    meta.started = auditing.started.clone();
    end.begin(scope.duration)?;
    announce(&scope, " and prints the audit");
    let ended = end.wait().await?;
    meta.exit_code = ended.command_code();
    meta.left_running = ended.left_running();
    print(&auditing.audit()?, &meta, arguments.json)?;
    Ok(ended.exit_code())
}

fn print(audit: &Audit, meta: &Meta, json: bool) -> Result<()> {
    let text = if json {
        sink::json::printable(format!("{}\n", sink::audit::audit(audit, meta)?))
    } else {
        sink::text::audit(audit, meta, width())
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the audit")
}

/// The audit's probes at work.
struct Auditing {
    attached: Probes,
    plan: Plan,
    health: Health,
    release: String,
    /// Keeps the kernel's statistics of programs on; or why they are not.
    statistics: Result<OwnedFd, String>,
    /// What was counted while the probes were being attached.
    baseline: AuditSample,
    begun: Instant,
    started: Option<String>,
}

impl Auditing {
    fn start(wish: &Wish) -> Result<Self> {
        let statistics =
            runs::enable().map_err(|error| format!("the kernel keeps no statistics of programs for us ({error})"));
        let plan = |facts: &Facts| plan::audit_plan(facts, wish);
        let Opened { facts, plan, attached, results, .. } = Opened::by_all(&wanted(), plan, wish, &Progress::begin());
        let attached = attached.map_err(|why| anyhow!("{why}"))?;
        let health = health::health(&plan, &results);
        let baseline = source::read(&attached).context("cannot read the figures")?;
        attached.count(true);
        let (begun, started) = (Instant::now(), wall_clock());
        Ok(Self { attached, plan, health, release: facts.release.text, statistics, baseline, begun, started })
    }

    fn mode(&self) -> &'static str {
        self.plan.mechanism.map_or("none", |mechanism| mechanism.name())
    }

    /// What was counted since the start.
    fn audit(&self) -> Result<Audit> {
        let elapsed_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let sample = source::read(&self.attached).context("cannot read the figures")?.since(&self.baseline);
        let context = Context {
            elapsed_ns,
            places: addresses::resolve(Path::new("/proc/kallsyms"), &audit::addresses(&sample)),
            functions: self.functions(),
            degraded: self.health.figures.shown().collect(),
            no_statistics: self.statistics.as_ref().err().cloned(),
        };
        Ok(audit::fold(&sample, &context))
    }

    /// What became of each function.
    fn functions(&self) -> Vec<Audited> {
        let of_family = self.plan.choices.iter().filter(|choice| matches!(choice.role, Role::Audit(_)));
        of_family
            .map(|choice| {
                let function = choice.role.name().to_owned();
                let hook = self.plan.hooks.iter().find(|hook| hook.role == choice.role);
                let of_function = |hook: &&health::HookHealth| hook.function == function;
                let failed = self.health.hooks.iter().filter(of_function).find_map(|hook| match &hook.state {
                    HookState::Failed(reason) => Some(reason.clone()),
                    _ => None,
                });
                let hooked = matches!(choice.chosen, Outcome::Hooked(_)) && failed.is_none();
                let mechanism = hook.filter(|_| hooked).map(|hook| plan::mechanism_of(hook.kind));
                Audited { function, mechanism, why: failed.unwrap_or_else(|| choice.why.clone()) }
            })
            .collect()
    }
}
