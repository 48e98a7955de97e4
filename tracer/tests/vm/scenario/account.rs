//! The account of a scenario: what was done, by whom, and what the kernel answered.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{maps::Backing, tally::Tally};

/// All of it. Times are of `CLOCK_MONOTONIC`; sums are over all calls, accepted or refused.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Account {
    pub scenario: String,
    pub cured: bool,
    pub pid: u32,
    pub uid: u32,
    pub started_ns: u64,
    pub ended_ns: u64,
    pub results: Tally,
    pub failed: u64,
    pub buffers: u64,
    pub bytes: u64,
    /// By /proc/self/maps; a VMA that several buffers of a call in a row touch counts once.
    pub vmas: u64,
    /// The sum over the buffers.
    pub buffers_vmas: u64,
    pub single_vma_buffers: u64,
    /// Of a buffer.
    pub most_vmas: u64,
    /// Distinct files under a buffer.
    pub most_files: u64,
    /// During the calls, by getrusage(2).
    pub minor_faults: u64,
    /// By operation.
    pub calls_ns: BTreeMap<String, u64>,
    pub backings: Vec<Under>,
    pub rings: Vec<RingUsed>,
    pub calls: Vec<Call>,
    /// What only this scenario has to tell.
    pub more: Map<String, Value>,
}

/// What lay under all buffers together, of one backing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Under {
    pub backing: Backing,
    pub buffers: u64,
    pub vmas: u64,
    pub bytes: u64,
}

/// A ring.
#[derive(Debug, Serialize, Deserialize)]
pub struct RingUsed {
    pub fd: i32,
    /// Before and after its making.
    pub created_ns: (u64, u64),
    /// I/O requests that it completed.
    pub requests: u64,
}

/// One io_uring_register(2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Call {
    /// Index of its ring in the account.
    pub ring: usize,
    pub operation: String,
    pub result: String,
    pub ret: i64,
    pub started_ns: u64,
    pub ended_ns: u64,
    /// I/O requests that the ring had completed before.
    pub requests_before: u64,
    /// `table`, `fill`, `replacement` or `clone`; `emptying` where it only took buffers out. Empty for all else.
    pub kind: String,
    /// Whether it came in the place of buffers that the ring had.
    pub switched: bool,
    pub buffers: u64,
    pub bytes: u64,
    /// A VMA that several buffers in a row touch counts once.
    pub vmas: u64,
    /// The sum over the buffers.
    pub buffers_vmas: u64,
    pub single_vma_buffers: u64,
    pub most_vmas: u64,
    pub most_files: u64,
    pub minor_faults: u64,
}

impl Call {
    /// Whether it put a buffer into its ring's table.
    pub fn installed(&self) -> bool {
        self.ret >= 0 && (self.operation == "clone" || (self.operation != "unregister" && self.bytes > 0))
    }
}

impl Account {
    /// Counts a call in.
    pub fn add(&mut self, call: Call) {
        self.results.add(&call.operation, &call.result, 1);
        self.failed += u64::from(call.ret < 0);
        self.buffers += call.buffers;
        self.bytes += call.bytes;
        self.vmas += call.vmas;
        self.buffers_vmas += call.buffers_vmas;
        self.single_vma_buffers += call.single_vma_buffers;
        self.most_vmas = self.most_vmas.max(call.most_vmas);
        self.most_files = self.most_files.max(call.most_files);
        self.minor_faults += call.minor_faults;
        *self.calls_ns.entry(call.operation.clone()).or_default() += call.ended_ns - call.started_ns;
        self.calls.push(call);
    }

    /// Reads what a scenario wrote.
    pub fn read(path: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("the scenario wrote no {path}"))?;
        Ok(serde_json::from_str(&text)?)
    }
}
