//! The system calls around the registrations: where their callers' time went, and those that have not ended.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{counter::Counter, operation::Operation};

use super::{coverage::skipped, fold::Fold};
use crate::{
    decode::{Pid, comm},
    figure::Figure,
    sample::Call,
};

/// A call that has been under way for longer is named.
pub const LONG_NS: u64 = 1_000_000_000;

/// The time of the system calls of one operation whose function was entered. The parts sum to the total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallTimes {
    /// Which.
    pub operation: Operation,
    /// Calls.
    pub calls: u64,
    /// Nanoseconds from the system call's entry to its end, pinscope's own work around the function and walks left out.
    pub total_ns: u64,
    /// Before the function: the look-up of the ring, and the wait for its lock.
    pub wait_ns: u64,
    /// In the function; where its return is not hooked, what is behind it as well.
    pub function_ns: u64,
    /// Behind it; `None` where the function's return is not hooked.
    pub after_ns: Option<u64>,
}

/// Calls that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnderWay {
    /// How long the oldest has been under way, nanoseconds; `None` where none is.
    pub oldest_ns: Option<u64>,
    /// Those that have been for more than a second, the oldest first.
    pub long: Vec<LongCall>,
    /// As many of `long` at most have ended: the kernel skipped runs at the ends of calls, and does not tell of these. 0 where it
    /// tells, as kernels on x86-64 do.
    pub unseen_ends: u64,
    /// From where they are seen.
    pub since: SeenFrom,
}

/// From where calls under way are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SeenFrom {
    /// From the system call's entry.
    #[default]
    #[serde(rename = "system call")]
    SystemCall,
    /// From the entry of the kernel's function: one that waits for its ring's lock is not among them.
    #[serde(rename = "function")]
    Function,
}

/// A call that has been under way for more than a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LongCall {
    /// Which.
    pub operation: Operation,
    /// Thread group.
    pub pid: Pid,
    /// Thread.
    pub tid: Pid,
    /// `task_struct.comm`.
    pub comm: String,
    /// How long it has been, nanoseconds.
    pub age_ns: u64,
}

impl Fold<'_> {
    /// `None` where the system call is not hooked.
    pub(super) fn call_times(&self) -> Option<Vec<CallTimes>> {
        let of = |operation: Operation| {
            let count = |counter: Counter| self.sample.counters[counter.of(operation)];
            let [wait_ns, function_ns, after_ns] =
                [Counter::CallWaitNs, Counter::CallFunctionNs, Counter::CallAfterNs].map(count);
            let total_ns = wait_ns.saturating_add(function_ns).saturating_add(after_ns);
            let calls = count(Counter::TimedCalls);
            let after_ns = self.capabilities.returns[operation as usize].then_some(after_ns);
            CallTimes { operation, calls, total_ns, wait_ns, function_ns, after_ns }
        };
        self.figures.has(Figure::CallTime).then(|| Operation::ALL.map(of).into())
    }

    /// `None` where no entry is hooked, nothing tells of ends, or the tasks' registers cannot be looked at.
    pub(super) fn under_way(&self) -> Option<UnderWay> {
        if !self.figures.has(Figure::UnderWay) {
            return None;
        }
        let (calls, now_ns) = self.sample.calls.as_ref().zip(self.sample.now_ns)?;
        let mut calls: Vec<_> = calls.iter().filter_map(|call| long(call, now_ns)).collect();
        calls.sort_by_key(|(call, _)| Reverse(call.age_ns));
        let oldest_ns = calls.first().map(|(call, _)| call.age_ns);
        calls.retain(|(call, _)| call.age_ns > LONG_NS);
        let unsure = calls.iter().filter(|(_, sure)| !sure).count() as u64;
        let unseen_ends = skipped(self.sample, &["ledger", "call_exit"]).min(unsure);
        let since = if self.capabilities.calls { SeenFrom::SystemCall } else { SeenFrom::Function };
        let long = calls.into_iter().map(|(call, _)| call).collect();
        Some(UnderWay { oldest_ns, long, unseen_ends, since })
    }
}

/// The call at this time, and whether it is sure not to have ended.
fn long(call: &Call, now_ns: u64) -> Option<(LongCall, bool)> {
    let long = LongCall {
        operation: Operation::from_number(call.operation)?,
        pid: call.pid.into(),
        tid: call.tid.into(),
        comm: comm(&call.comm),
        age_ns: now_ns.saturating_sub(call.since_ns),
    };
    Some((long, call.sure))
}
