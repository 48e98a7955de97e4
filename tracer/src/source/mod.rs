//! Where figures come from: the maps and the ring buffer.

pub mod maps;
pub mod records;
pub mod sample;
pub mod wait;
