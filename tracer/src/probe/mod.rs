//! From the facts of a kernel to attached programs: table, plan, attach, health.

pub mod attach;
pub mod audit;
mod constants;
pub mod descriptors;
pub mod health;
mod loader;
pub mod mode;
pub mod multi;
pub mod object;
pub mod offsets;
pub mod plan;
pub mod progress;
mod select;
pub mod sizes;
pub mod table;
mod tracefs;
pub mod wish;
