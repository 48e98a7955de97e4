//! Where figures come from: the maps and the ring buffer.

pub mod sample;
