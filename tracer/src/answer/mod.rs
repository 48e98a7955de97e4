//! The questions that pinscope was made for, answered from a snapshot. All of it is pure.
//!
//! A question is `answered`, `degraded` where its figures hold only in part, or `unanswerable` where there are none:
//! what was not seen is never told as a zero.

mod classes;
mod evidence;
pub mod explain;
mod q1;
mod q2;
mod q3;
mod q4;
mod q5;
pub mod q6;
mod q7;
mod reasons;
mod rows;
mod rules;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{aggregate::Snapshot, figure::FigureSet};

pub use evidence::{Column, Evidence, Hook, Table, Threshold, Value};
pub use explain::{Advice, Explanation, explanations};
pub use rules::{Agreement, Verdict, running};

/// What made the figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Origin {
    /// Of pinscope.
    pub version: String,
    /// The running kernel's release (`uname -r`).
    pub kernel: String,
    /// How the probes are attached: `fentry`, `kprobe.multi` or `kprobe`.
    pub mode: String,
}

impl Origin {
    /// By this pinscope.
    pub fn new(kernel: &str, mode: &str) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), kernel: kernel.to_owned(), mode: mode.to_owned() }
    }
}

/// What a snapshot alone does not say about how it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// By what.
    pub origin: Origin,
    /// The hooks that are attached.
    pub hooks: Vec<Hook>,
    /// Whether this kernel makes one bvec of the pages of a folio (`io_mapped_ubuf.folio_shift`, since 6.12).
    pub coalesces: bool,
    /// Whether this kernel lets a ring take over another's buffers (`IORING_REGISTER_CLONE_BUFFERS`, since 6.12).
    pub clones: bool,
}

/// One question, answered as far as it can be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "Written")]
pub struct Answer {
    /// `Q1` to `Q7`.
    pub id: &'static str,
    /// The question.
    pub question: &'static str,
    /// How far it could be answered.
    pub state: State,
    /// The answer in one sentence, with its figures; `None` where there is none.
    pub verdict: Option<String>,
    /// What it rests on.
    pub evidence: Evidence,
}

/// How far a question could be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Wholly.
    Answered,
    /// In part, or with less certainty.
    Degraded {
        /// What is missing, a reason each.
        why: Vec<String>,
    },
    /// Not at all.
    Unanswerable {
        /// What is missing.
        why: String,
    },
}

impl State {
    /// The names used in every output.
    pub const NAMES: [&'static str; 3] = ["answered", "degraded", "unanswerable"];

    /// The name used in every output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Degraded { .. } => "degraded",
            Self::Unanswerable { .. } => "unanswerable",
        }
    }

    /// What is missing.
    pub fn why(&self) -> &[String] {
        match self {
            Self::Answered => &[],
            Self::Degraded { why } => why,
            Self::Unanswerable { why } => std::slice::from_ref(why),
        }
    }
}

/// One question, answered as far as it can be.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Answer")]
pub(crate) struct Written {
    /// `Q1` to `Q7`.
    id: &'static str,
    /// The question.
    question: &'static str,
    /// How far it could be answered.
    state: StateName,
    /// What is missing, a reason each.
    why: Vec<String>,
    /// The answer in one sentence, with its figures; null where there is none.
    verdict: Option<String>,
    /// What it rests on.
    evidence: Evidence,
}

/// How far a question could be answered.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StateName {
    /// Wholly.
    Answered,
    /// In part, or with less certainty.
    Degraded,
    /// Not at all.
    Unanswerable,
}

impl From<Answer> for Written {
    fn from(Answer { id, question, state, verdict, evidence }: Answer) -> Self {
        let name = match state {
            State::Answered => StateName::Answered,
            State::Degraded { .. } => StateName::Degraded,
            State::Unanswerable { .. } => StateName::Unanswerable,
        };
        Self { id, question, state: name, why: state.why().to_vec(), verdict, evidence }
    }
}

/// What a report says beyond its figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Every question but [`q6`].
    pub answers: Vec<Answer>,
    /// What each process's registrations cost and what to change; `None` where nobody asked, or processes are not kept
    /// apart.
    pub explanations: Option<Vec<Explanation>>,
}

impl Answers {
    /// The answers, and the explanations where they are asked for.
    pub fn new(snapshot: &Snapshot, context: &Context, explain: bool) -> Self {
        Self {
            answers: answers(snapshot, context),
            explanations: explain.then(|| explanations(snapshot, context)).flatten(),
        }
    }
}

/// Every question that a snapshot answers, in order.
pub fn answers(snapshot: &Snapshot, context: &Context) -> Vec<Answer> {
    vec![
        q1::answer(snapshot, context),
        q2::answer(snapshot, context),
        q3::answer(snapshot, context),
        q4::answer(snapshot, context),
        q5::answer(snapshot, context),
        q7::answer(snapshot, context),
    ]
}

/// The figures that each question rests on, in the questions' order.
pub const FIGURES: [FigureSet; 6] = [
    q1::QUESTION.figures,
    q2::QUESTION.figures,
    q3::QUESTION.figures,
    q4::QUESTION.figures,
    q5::QUESTION.figures,
    q7::QUESTION.figures,
];

/// A question, and where its figures come from.
struct Question {
    id: &'static str,
    text: &'static str,
    /// Names of the roles whose hooks give the figures.
    roles: &'static [&'static str],
    /// The figures that it rests on: where one is missing, the answer holds in part at most.
    figures: FigureSet,
}

/// An answer under way.
#[derive(Default)]
struct Draft {
    n: u64,
    of: &'static str,
    verdict: String,
    why: Vec<String>,
    thresholds: Vec<Threshold>,
    tables: Vec<Table>,
    notes: Vec<String>,
}

impl Question {
    /// Answered, or degraded where there is a reason.
    fn told(&self, context: &Context, draft: Draft) -> Answer {
        if draft.n == 0 {
            return self.unanswerable(context, format!("no {} were seen", draft.of));
        }
        let state = if draft.why.is_empty() { State::Answered } else { State::Degraded { why: draft.why } };
        let evidence = Evidence {
            n: Some(draft.n),
            of: draft.of,
            thresholds: draft.thresholds,
            tables: draft.tables.into_iter().filter(|table| !table.rows.is_empty()).collect(),
            notes: draft.notes,
            ..self.evidence(context)
        };
        Answer { id: self.id, question: self.text, state, verdict: Some(draft.verdict), evidence }
    }

    fn unanswerable(&self, context: &Context, why: String) -> Answer {
        let state = State::Unanswerable { why };
        Answer { id: self.id, question: self.text, state, verdict: None, evidence: self.evidence(context) }
    }

    fn evidence(&self, context: &Context) -> Evidence {
        let hooks = context.hooks.iter().filter(|hook| self.roles.contains(&hook.role));
        Evidence {
            kernel: context.origin.kernel.clone(),
            mode: context.origin.mode.clone(),
            hooks: hooks.cloned().collect(),
            ..Evidence::default()
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
pub(crate) mod tests;
