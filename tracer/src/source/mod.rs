//! Where figures come from: the maps and the ring buffer.

pub mod audit;
mod entries;
pub mod fdinfo;
mod frames;
pub mod mapped;
pub mod maps;
pub mod own;
pub mod records;
pub mod runs;
pub mod skipped;
pub mod tables;
pub mod under_way;
pub mod wait;
pub mod workloads;
