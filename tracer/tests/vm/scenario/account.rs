//! The account of a scenario: its calls, who made them, and the kernel's answers.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{call_counts::CallCounts, maps::Backing};

/// The complete account. Times are of `CLOCK_MONOTONIC`; sums include refused calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Account {
    pub scenario: String,
    pub cured: bool,
    pub pid: u32,
    pub uid: u32,
    pub started_ns: u64,
    pub ended_ns: u64,
    pub results: CallCounts,
    pub failed: u64,
    pub buffers: u64,
    pub bytes: u64,
    /// According to /proc/self/maps. A VMA touched by several consecutive buffers of a call counts once.
    pub vmas: u64,
    /// Sum over the buffers.
    pub buffers_vmas: u64,
    pub single_vma_buffers: u64,
    /// Maximum of a buffer.
    pub most_vmas: u64,
    /// Maximum number of distinct files under a buffer.
    pub most_files: u64,
    /// Faults during the calls, from getrusage(2).
    pub minor_faults: u64,
    /// Time by operation.
    pub calls_ns: BTreeMap<String, u64>,
    pub backings: Vec<Under>,
    pub rings: Vec<RingUsed>,
    pub calls: Vec<Call>,
    /// Figures of this scenario alone.
    pub more: Map<String, Value>,
}

/// Size of all buffers together with one backing.
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
    /// Clock before and after its creation.
    pub created_ns: (u64, u64),
    /// Number of I/O requests that it completed.
    pub requests: u64,
}

/// One call of io_uring_register(2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Call {
    /// Index of its ring in the account.
    pub ring: usize,
    pub operation: String,
    pub result: String,
    pub ret: i64,
    pub started_ns: u64,
    pub ended_ns: u64,
    /// Number of I/O requests that the ring had completed before.
    pub requests_before: u64,
    /// `table`, `fill`, `replacement` or `clone`; `emptying` if it only removed buffers; empty otherwise.
    pub kind: String,
    /// Whether it replaced buffers of the ring.
    pub switched: bool,
    pub buffers: u64,
    pub bytes: u64,
    /// A VMA touched by several consecutive buffers counts once.
    pub vmas: u64,
    /// Sum over the buffers.
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
    /// Adds a call.
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

    /// Reads the account that a scenario wrote.
    pub fn read(path: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("the scenario wrote no {path}"))?;
        Ok(serde_json::from_str(&text)?)
    }
}
