//! What a plan is: hooks, settings, the reasons for them, and what it cannot give.

mod audit;
mod detail;
mod error;
mod make;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use tracer_ebpf::{policy::Policy, settings::Settings};

use super::{
    mode::{Mechanism, Obstacles},
    table::Role,
};
use crate::figure::{Figure, Figures};

pub use super::wish::{Filters, Wish};
pub use audit::{audit_plan, mechanism_of};
pub use detail::{no_accounting_times, no_lookup_times};
pub use error::{OLDEST, PlanError};
pub use make::plan;

/// How one program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// At a function's entry.
    Kprobe,
    /// At its return.
    Kretprobe,
    /// At a function's entry, by fprobe.
    Multi,
    /// At its return, by fprobe.
    MultiReturn,
    /// At a function's entry, through a trampoline.
    Fentry,
    /// At its return, through a trampoline.
    Fexit,
    /// At a tracepoint, with its raw arguments.
    RawTracepoint,
    /// At a tracepoint, as a perf event.
    Tracepoint,
    /// By an iterator of the kernel's, which pinscope reads.
    Iterator,
    /// By pinscope's own call, attached nowhere.
    Call,
}

impl Kind {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multi => "kprobe.multi",
            Self::MultiReturn => "kretprobe.multi",
            _ => self.program(),
        }
    }

    /// The end of the programs' names: fprobe calls those of kprobes.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Kprobe | Self::Multi => "kprobe",
            Self::Kretprobe | Self::MultiReturn => "kretprobe",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Tracepoint => "tracepoint",
            Self::Iterator => "iterator",
            Self::Call => "call",
        }
    }
}

impl Mechanism {
    /// How it hooks a function's entry and its return.
    pub const fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Multi => (Kind::Multi, Kind::MultiReturn),
            Self::Kprobe => (Kind::Kprobe, Kind::Kretprobe),
            Self::Fentry => (Kind::Fentry, Kind::Fexit),
        }
    }
}

/// One program to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What for.
    pub role: Role,
    /// Name of the program in the eBPF object.
    pub program: String,
    /// The kernel function, or the tracepoint without its group.
    pub function: String,
    /// How.
    pub kind: Kind,
    /// The figures that are lost if it does not attach.
    pub figures: &'static [Figure],
}

/// What became of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Filled by this function or tracepoint.
    Hooked(String),
    /// Not asked for.
    NotWanted,
    /// This kernel has nothing of the kind, so nothing is lost.
    NotApplicable,
    /// Nothing fills it.
    Lost,
}

/// One role's choice, and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The role.
    pub role: Role,
    /// What became of it.
    pub chosen: Outcome,
    /// Why, in one line.
    pub why: String,
    /// Candidates that were looked at before, and why they were passed over.
    pub passed_over: Vec<(String, String)>,
}

/// How much of what was asked for can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it.
    Full,
    /// Some figures are missing or incomplete; [`Plan::figures`] names them.
    Degraded,
    /// Nothing.
    Nothing,
}

/// What is hooked on this kernel, and why.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How functions are hooked; `None` where they cannot be.
    pub mechanism: Option<Mechanism>,
    /// What stands in the way of either mechanism.
    pub obstacles: Obstacles,
    /// The programs to attach. Empty where something fatal is among `errors`.
    pub hooks: Vec<Hook>,
    /// The programs that would be attached but for what is fatal among `errors`.
    pub withheld: Vec<Hook>,
    /// Offsets and kernel features for the eBPF side; `session` is left at its default.
    pub settings: Settings,
    /// Every role, with its reasons.
    pub choices: Vec<Choice>,
    /// Which figures it gives; of what it cannot hook it says why.
    pub figures: Figures,
    /// What stands in the way.
    pub errors: Vec<PlanError>,
    /// There is no task storage: the map of the frames has to be a hash by thread id.
    pub legacy_frames: bool,
    /// The end of a ring calls the function of an unregistration: not where that has an inner one (up to 6.12).
    pub ring_exits: bool,
    /// At its end a ring with a table is told from one without.
    pub ring_tables: bool,
    /// The rule for buffers that this kernel is under, where it can be told, and how that is known.
    pub policy: (Option<Policy>, String),
}

impl Plan {
    /// How much of what was asked for can be had.
    pub fn verdict(&self) -> Verdict {
        if self.errors.iter().any(PlanError::is_fatal) || self.hooks.is_empty() {
            Verdict::Nothing
        } else if self.errors.is_empty() && self.figures.is_whole() {
            Verdict::Full
        } else {
            Verdict::Degraded
        }
    }

    /// Whether nothing can be measured, whatever else is known of the kernel.
    pub fn is_settled(&self) -> bool {
        self.errors.iter().any(PlanError::is_settled)
    }

    /// Whether this kernel has what the role is about, hooked or not.
    pub fn has(&self, role: Role) -> bool {
        self.choices.iter().any(|choice| choice.role == role && choice.chosen != Outcome::NotApplicable)
    }

    pub(super) fn chose(&mut self, role: Role, chosen: Outcome, why: impl Into<String>) {
        self.choices.push(Choice { role, chosen, why: why.into(), passed_over: Vec::new() });
    }
}
