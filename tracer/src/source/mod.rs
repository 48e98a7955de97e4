//! Where figures come from: the maps and the ring buffer.

pub mod audit;
mod frames;
pub mod maps;
pub mod probes;
pub mod records;
pub mod runs;
pub mod self_usage;
pub mod skipped;
pub mod tables;
pub mod under_way;
pub mod wait;
mod waiting;
pub mod workloads;
