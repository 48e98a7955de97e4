//! What an audit's maps and programs held at one moment.

use std::collections::{BTreeMap, HashMap};

use tracer_ebpf::audit::{AuditCounter, AuditKey, AuditTotals};

/// The audit's maps, added up over the CPUs.
#[derive(Clone, Debug, Default)]
pub struct AuditSample {
    /// Calls by what they are told apart by.
    pub calls: BTreeMap<AuditKey, AuditTotals>,
    /// By [`AuditCounter`].
    pub counters: [u64; AuditCounter::SLOTS],
    /// Return addresses by a key's `stack`, the innermost first.
    pub stacks: BTreeMap<i32, Vec<u64>>,
    /// Names by the address of the `file_system_type`.
    pub filesystems: HashMap<u64, String>,
    /// Runs that the kernel skipped, by program.
    pub skipped: BTreeMap<String, u64>,
    /// Runs and nanoseconds of our programs; of use only where the kernel keeps statistics.
    pub runs: u64,
    /// See `runs`.
    pub run_ns: u64,
}

impl AuditSample {
    /// What came after an earlier sample.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (key, now) in &mut self.calls {
            if let Some(before) = earlier.calls.get(key) {
                now.calls = now.calls.saturating_sub(before.calls);
                now.asked = now.asked.saturating_sub(before.asked);
                now.got = now.got.saturating_sub(before.got);
                now.time_ns = now.time_ns.saturating_sub(before.time_ns);
                now.vmas = now.vmas.saturating_sub(before.vmas);
                now.own_ns = now.own_ns.saturating_sub(before.own_ns);
            }
        }
        self.calls.retain(|_, totals| totals.calls > 0);
        for (now, before) in self.counters.iter_mut().zip(earlier.counters) {
            *now = now.saturating_sub(before);
        }
        for (program, now) in &mut self.skipped {
            *now = now.saturating_sub(earlier.skipped.get(program).copied().unwrap_or(0));
        }
        self.runs = self.runs.saturating_sub(earlier.runs);
        self.run_ns = self.run_ns.saturating_sub(earlier.run_ns);
        self
    }
}

/// Adds two rows.
pub fn add(a: AuditTotals, b: AuditTotals) -> AuditTotals {
    AuditTotals {
        calls: a.calls + b.calls,
        asked: a.asked + b.asked,
        got: a.got + b.got,
        time_ns: a.time_ns + b.time_ns,
        vmas: a.vmas + b.vmas,
        own_ns: a.own_ns + b.own_ns,
    }
}
