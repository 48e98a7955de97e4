//! Reports: the object printed by `pinscope report --json`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{call_counts::CallCounts, contract, pinscope::Finished};

/// A report.
#[derive(Clone)]
pub struct Report(Value);

impl Report {
    /// Reads the last line of pinscope's output; a traced command may have printed before it.
    pub fn of(finished: &Finished) -> anyhow::Result<Self> {
        let line = finished.stdout.lines().rfind(|line| !line.trim().is_empty());
        let line = line.with_context(|| format!("no report\n{}", finished.words()))?;
        let value: Value = serde_json::from_str(line).with_context(|| format!("no report\n{}", finished.words()))?;
        ensure!(value["type"] == "report" && value["schema"] == 1, "no report of schema 1: {line}");
        contract::kept("report", &value)?;
        Ok(Self(value))
    }

    /// The whole report.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Answer to a question, Q1 to Q7.
    pub fn answer(&self, id: &str) -> anyhow::Result<&Value> {
        let answers = self.0["answers"].as_array().context("no answers")?;
        answers.iter().find(|answer| answer["id"] == id).with_context(|| format!("no {id}"))
    }

    /// Counts by operation and result, without those that are zero.
    pub fn call_counts(&self) -> anyhow::Result<CallCounts> {
        let mut counts = CallCounts::default();
        for operation in self.operations()? {
            let name = operation["operation"].as_str().context("an operation without a name")?;
            for result in operation["results"].as_array().context("an operation without results")? {
                let kind = result["result"].as_str().context("a result without a name")?;
                counts.add(name, kind, result["count"].as_u64().context("a result without a count")?);
            }
        }
        Ok(counts)
    }

    fn operations(&self) -> anyhow::Result<&Vec<Value>> {
        self.0["operations"].as_array().context("no operations in the report")
    }

    /// Books of the operations, by name.
    pub fn books(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let books = self.0["books"]["operations"].as_array().context("no books in the report")?;
        Ok(books.iter().map(|book| (book["operation"].as_str().unwrap_or_default().to_owned(), book.clone())).collect())
    }

    /// Fails unless the books balance exactly, nothing was lost, and the counts equal the true ones.
    pub fn balanced(&self, truth: &CallCounts) -> anyhow::Result<()> {
        let seen = self.call_counts()?;
        if seen != *truth {
            bail!("counted:\n{seen}expected:\n{truth}");
        }
        ensure!(self.0["books"]["balanced"] == true, "the books do not balance: {}", self.0["books"]);
        for (name, book) in self.books()? {
            let total = truth.total(&name);
            ensure!(book["ledger"] == total, "{name}: ledger {}, expected {total}", book["ledger"]);
            ensure!(book["unexplained"] == 0, "{name}: {book}");
            if !book["entries"].is_null() {
                let sum = |keys: &[&str]| keys.iter().filter_map(|key| book[*key].as_u64()).sum::<u64>();
                ensure!(book["in_flight"] == 0, "{name}: {book}, lost {}", self.0["lost"]);
                let reasons = sum(&["skipped_entries"]) + self.0["lost"]["frames"].as_u64().unwrap_or(0);
                ensure!(sum(&["missed_entries"]) <= reasons, "{name}: {book}, lost {}", self.0["lost"]);
                ensure!(sum(&["entries", "refused_early", "missed_entries"]) == total, "{name}: {book}");
                let ended = sum(&["returns", "missed_returns"]);
                ensure!(book["returns"].is_null() || ended == sum(&["entries"]), "{name}: {book}");
            }
        }
        self.nothing_lost()
    }

    fn nothing_lost(&self) -> anyhow::Result<()> {
        let lost = self.0["lost"].as_object().context("no losses in the report")?;
        // While a task is preempted within the storage for its frame, other tasks on that CPU get no frame: each of
        // their calls is counted without an entry.
        let books = self.books()?;
        let unentered =
            books.values().flat_map(|book| ["missed_entries", "refused_early"].map(|key| book[key].as_u64()));
        let unentered: u64 = unentered.flatten().sum();
        ensure!(lost["frames"].as_u64().is_none_or(|lost| lost <= unentered), "lost frames: {}", lost["frames"]);
        for cause in ["processes", "backings", "reentries", "descendants"] {
            let count = lost.get(cause).with_context(|| format!("the report has no losses of {cause}"))?;
            ensure!(count.is_null() || count == 0, "lost {cause}: {count}");
        }
        Ok(())
    }

    /// Program runs that the kernel reports as skipped, because a task reached a program in which another task was
    /// preempted. Excludes the raw tracepoint for new rings, which counts no registrations.
    pub fn skipped(&self) -> anyhow::Result<u64> {
        let skipped = self.0["skipped"].as_array().context("no skipped runs in the report")?;
        let of_calls = skipped.iter().filter(|one| one["program"] != "ring_created");
        of_calls.map(|one| one["runs"].as_u64().context("skipped runs without a number")).sum()
    }

    /// Returns that were not seen, over all operations.
    pub fn missed_returns(&self) -> anyhow::Result<u64> {
        Ok(self.books()?.values().filter_map(|book| book["missed_returns"].as_u64()).sum())
    }

    /// Buffers by class, either accepted or refused ones.
    pub fn buffers_by_class(&self, ok: bool) -> anyhow::Result<BTreeMap<String, u64>> {
        let backings = self.0["backings"].as_array().context("the report has no backings")?;
        let mut classes = BTreeMap::new();
        for backing in backings.iter().filter(|backing| backing["ok"] == ok) {
            let class = backing["class"].as_str().context("a backing without a class")?;
            *classes.entry(class.to_owned()).or_default() += backing["buffers"].as_u64().context("no buffers")?;
        }
        Ok(classes)
    }
}
