//! Q6: who else pins. A session of its own answers it.

use super::{Answer, Context, Question};
use crate::figure::FigureSet;

pub(super) const QUESTION: Question = Question {
    id: "Q6",
    text: "Who else pins user pages, and of which mappings?",
    roles: &[],
    figures: FigureSet::NONE,
};

pub(super) fn answer(context: &Context) -> Answer {
    QUESTION.unanswerable(context, "asked by `pinscope audit`, which sits on the O_DIRECT path".to_owned())
}
