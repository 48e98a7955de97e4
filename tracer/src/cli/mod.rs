//! Raw arguments, and the validated configuration made of them.

pub mod args;
pub mod config;
pub mod file;
pub mod manual;
pub mod otlp;
pub mod service;
pub mod shipped;
