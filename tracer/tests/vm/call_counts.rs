//! Counts of calls by operation and result.

use std::{collections::BTreeMap, fmt};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Number of calls by operation and result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts(BTreeMap<String, BTreeMap<String, u64>>);

impl CallCounts {
    /// Counts records.
    pub fn of(records: &[Record]) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.add(&record.operation, &record.result, 1);
        }
        counts
    }

    /// Adds to a count. Adding zero leaves no entry.
    pub fn add(&mut self, operation: &str, result: &str, count: u64) {
        if count > 0 {
            *self.0.entry(operation.to_owned()).or_default().entry(result.to_owned()).or_default() += count;
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (operation, results) in &other.0 {
            for (result, count) in results {
                self.add(operation, result, *count);
            }
        }
    }

    /// Reclassifies this number of successful updates as partial. The kernel's tracepoint does not distinguish the two.
    pub fn partial(&mut self, count: u64) -> anyhow::Result<()> {
        let results = self.0.entry("update".to_owned()).or_default();
        let ok = results.remove("ok").unwrap_or(0);
        let ok = ok.checked_sub(count).with_context(|| format!("{count} updates are partial, of {ok}"))?;
        self.add("update", "ok", ok);
        self.add("update", "partial", count);
        Ok(())
    }

    /// Calls of one operation with one result.
    pub fn count(&self, operation: &str, result: &str) -> u64 {
        self.0.get(operation).and_then(|results| results.get(result)).copied().unwrap_or(0)
    }

    /// Calls of one operation.
    pub fn total(&self, operation: &str) -> u64 {
        self.0.get(operation).map_or(0, |results| results.values().sum())
    }

    /// All calls.
    pub fn all(&self) -> u64 {
        self.0.keys().map(|operation| self.total(operation)).sum()
    }

    /// Failed calls.
    pub fn failed(&self) -> u64 {
        let ok: u64 = self.0.keys().map(|operation| self.count(operation, "ok")).sum();
        self.all() - ok
    }
}

impl fmt::Display for CallCounts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(operation, results)| writeln!(out, "  {operation}: {results:?}"))
    }
}
