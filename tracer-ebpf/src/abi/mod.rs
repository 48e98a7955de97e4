//! What both sides of pinscope share: the records and keys that cross from the kernel, the counters and
//! histograms that are kept there, the settings that go the other way, and the names of it all.
//!
//! It depends on nothing (but serde and schemars, where user space writes the enums as JSON), so the eBPF object and the user-space program are built from one definition,
//! and the maths in it is tested on the host.

pub mod audit;
pub mod backing;
pub mod counter;
pub mod detail;
pub mod histogram;
pub mod installation;
pub mod opaque;
pub mod operation;
pub mod policy;
pub mod record;
pub mod settings;
pub mod table;
pub mod under_way;
pub mod workload;
