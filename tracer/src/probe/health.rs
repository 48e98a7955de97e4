//! What became of the plan once its programs were attached. Pure.

use super::plan::{Outcome, Plan, Verdict};
use crate::figure::{Figure, Figures};

/// What became of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Attached.
    Attached,
    /// It should have been and was not, and why.
    Failed(String),
    /// Planned, and nobody reported an attempt.
    NotTried,
}

/// One hook of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookHealth {
    /// The program.
    pub program: String,
    /// The kernel function or tracepoint.
    pub function: String,
    /// What became of it.
    pub state: HookState,
}

/// All of it in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// All that was asked for is measured.
    Healthy,
    /// Some figures are missing or incomplete.
    Degraded,
    /// Nothing is measured.
    #[default]
    Failed,
}

impl Status {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// Health of an attached plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub status: Status,
    /// Each hook of the plan, in its order.
    pub hooks: Vec<HookHealth>,
    /// Roles that this kernel has nothing for, so that nothing is lost.
    pub not_applicable: Vec<&'static str>,
    /// The plan's figures, less those of hooks that did not attach.
    pub figures: Figures,
}

impl Health {
    /// Nothing is measured: that reason comes before all others.
    pub fn fail(&mut self, reason: &str) {
        self.status = Status::Failed;
        self.figures.lose_everything(reason);
    }

    /// A figure is missing though its hooks are attached.
    pub fn lose(&mut self, figure: Figure, reason: &str) {
        self.figures.lose(&[figure], reason);
        if self.status == Status::Healthy {
            self.status = Status::Degraded;
        }
    }
}

/// Holds the results of attaching (program, success or why not) against the plan.
///
/// A result for a program that is not in the plan is left out: it says nothing about a figure.
pub fn health(plan: &Plan, results: &[(String, Result<(), String>)]) -> Health {
    let hooks: Vec<_> = plan
        .hooks
        .iter()
        .map(|hook| {
            let result = results.iter().rev().find(|(program, _)| *program == hook.program).map(|(_, result)| result);
            let state = match result {
                Some(Ok(())) => HookState::Attached,
                Some(Err(reason)) => HookState::Failed(reason.clone()),
                None => HookState::NotTried,
            };
            HookHealth { program: hook.program.clone(), function: hook.function.clone(), state }
        })
        .collect();
    let figures = figures(plan, &hooks);
    let not_applicable = plan.choices.iter().filter(|c| c.chosen == Outcome::NotApplicable).map(|c| c.role.name());
    Health { status: status(plan, &hooks, &figures), not_applicable: not_applicable.collect(), hooks, figures }
}

fn figures(plan: &Plan, hooks: &[HookHealth]) -> Figures {
    let mut figures = plan.figures.clone();
    for (hook, health) in plan.hooks.iter().zip(hooks) {
        let reason = match &health.state {
            HookState::Attached => continue,
            HookState::Failed(reason) => format!("{} at {}: {reason}", hook.program, hook.function),
            HookState::NotTried => {
                format!("{} was not attached to {}", hook.program, hook.function)
            }
        };
        figures.lose(hook.figures, &reason);
    }
    figures
}

fn status(plan: &Plan, hooks: &[HookHealth], figures: &Figures) -> Status {
    let attached = hooks.iter().any(|hook| hook.state == HookState::Attached);
    let all = hooks.iter().all(|hook| hook.state == HookState::Attached);
    match plan.verdict() {
        _ if !attached => Status::Failed,
        Verdict::Nothing => Status::Failed,
        Verdict::Full if all && figures.is_whole() => Status::Healthy,
        Verdict::Full | Verdict::Degraded => Status::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::fixture,
        probe::plan::{Wish, plan},
    };

    fn results(plan: &Plan, fail: &str) -> Vec<(String, Result<(), String>)> {
        plan.hooks
            .iter()
            .map(|hook| {
                let failed = hook.program.starts_with(fail) && !fail.is_empty();
                (hook.program.clone(), if failed { Err("EBUSY".to_owned()) } else { Ok(()) })
            })
            .collect()
    }

    #[test]
    fn all_attached_is_healthy_and_one_failure_names_its_figures() {
        let plan = plan(&fixture::debian_6_12(), &Wish::default());
        let health_of = |fail| health(&plan, &results(&plan, fail));
        assert_eq!((health_of("").status, health_of("").figures), (Status::Healthy, plan.figures.clone()));
        let failed = health_of("clone_exit");
        assert_eq!(failed.status, Status::Degraded);
        let lost: Vec<_> = failed.figures.shown().collect();
        assert_eq!(lost, ["duration of clone: clone_exit_fexit at io_register_clone_buffers: EBUSY"]);
    }

    #[test]
    fn what_nobody_tried_is_not_healthy() {
        let plan = plan(&fixture::debian_6_12(), &Wish::default());
        let mut results = results(&plan, "");
        results.retain(|(program, _)| program != "ledger");
        let health = health(&plan, &results);
        assert_eq!(health.status, Status::Degraded);
        assert_eq!(health.hooks.last().map(|h| &h.state), Some(&HookState::Attached));
        assert!(health.hooks.iter().any(|h| h.program == "ledger" && h.state == HookState::NotTried));
    }

    #[test]
    fn nothing_attached_is_failed() {
        let plan = plan(&fixture::debian_6_12(), &Wish::default());
        assert_eq!(health(&plan, &[]).status, Status::Failed);
    }

    #[test]
    fn a_degraded_plan_stays_degraded_and_clone_does_not_apply_before_6_12() {
        let plan = plan(&fixture::debian_5_10(), &Wish::default());
        let health = health(&plan, &results(&plan, ""));
        assert_eq!(health.status, Status::Degraded);
        assert_eq!(health.figures, plan.figures);
        assert_eq!(health.not_applicable, ["clone"]);
    }
}
