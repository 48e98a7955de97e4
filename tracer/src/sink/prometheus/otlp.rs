//! Samples of pinscope's own exports. Absent where it exports to nobody.

use super::{Sample, Scrape};
use crate::sink::exports::{Counts, Outcome};

pub(super) fn exports<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let counts = scrape.service.exports.iter();
    counts
        .flat_map(|counts| Outcome::ALL.map(|outcome| Sample::count(&[outcome.name()], counts.exports(outcome))))
        .collect()
}

pub(super) fn count<'a>(scrape: &Scrape<'a>, of: fn(&Counts) -> u64) -> Vec<Sample<'a>> {
    scrape.service.exports.iter().map(|counts| Sample::count(&[], of(counts))).collect()
}
