//! Q6: who else pins. A session of its own answers it, so that a report only names the command.

/// The question's place among the others.
pub const ID: &str = "Q6";

/// The question, and where it is answered.
pub const POINTER: &str = "Who else pins user pages, and of which mappings? `pinscope audit` answers it.";
