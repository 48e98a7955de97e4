//! Raw arguments, and the validated configuration made of them.

pub mod args;
pub mod config;
