//! Where figures go: text, JSON, markdown, Prometheus.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{answer::Origin, human};

pub mod audit;
pub mod doctor;
pub mod exports;
pub mod http;
pub mod json;
mod log2_bucket;
pub mod markdown;
pub mod otlp;
pub mod page;
pub mod prometheus;
pub mod schema;
pub mod service;
pub mod text;
pub mod trace;

/// What a snapshot alone does not say about its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Meta {
    /// By what the figures were made.
    #[serde(flatten)]
    pub origin: Origin,
    /// Whom the session watched, in the user's words: `the whole machine`, `pid 42`, ...
    pub scope: String,
    /// The command that was run, if one was.
    pub command: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Its descendants that were still running when it ended: what they do after that is in no figure.
    pub left_running: Option<u32>,
    /// Wall time of attaching, RFC 3339 in UTC.
    pub started: Option<String>,
}

/// That descendants of the command outlived it, and what to do, for people.
pub fn left_running(descendants: Option<u32>) -> Option<String> {
    let descendants = descendants.filter(|descendants| *descendants > 0)?;
    Some(format!(
        "{} of the command still ran when it ended: what they do after that is in no figure. Without a command and with -d, --pid or --comm a session goes on.",
        human::plural(descendants.into(), "descendant")
    ))
}
