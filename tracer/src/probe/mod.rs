//! From the facts of a kernel to attached programs: table, plan, attach, health.

pub mod health;
pub mod mode;
pub mod offsets;
pub mod plan;
mod select;
pub mod table;
