//! Runs of programs that the kernel skipped, by what they mean.

use std::collections::BTreeMap;

/// Those of the program that counts every call.
pub fn uncounted(skipped: &BTreeMap<String, u64>) -> u64 {
    of(skipped, &["ledger"])
}

/// Those of the programs whose names begin so.
pub fn of(skipped: &BTreeMap<String, u64>, programs: &[&str]) -> u64 {
    let of = skipped.iter().filter(|(name, _)| programs.iter().any(|program| name.starts_with(program)));
    of.fold(0, |sum, (_, runs)| sum.saturating_add(*runs))
}
