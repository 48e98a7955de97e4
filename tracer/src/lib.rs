//! pinscope's user-space side. One direction, no arrow back:
//!
//! ```text
//! kernel ──> source ──> decode ──> aggregate ──> Snapshot ──> answer ──> sink
//! (eBPF)     ring buffer  bytes to   pure folds               the        text, json, markdown,
//!            and maps     records                             questions  prometheus, http
//! ```
//!
//! `kernel` says what this kernel is, `probe` plans on it and attaches; everything but `probe::attach` and
//! `source` is pure and tested without root.

#![deny(clippy::print_stderr, clippy::print_stdout, reason = "both panic where nobody can read; see `say`")]

pub mod aggregate;
pub mod answer;
mod bpf;
pub mod cli;
pub mod decode;
pub mod figure;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod human;
pub mod kernel;
pub mod limits;
pub mod logging;
mod memory;
pub mod probe;
pub mod sample;
pub mod say;
pub mod session;
pub mod sink;
pub mod source;
