//! What is registered now: from tables of buffers to sums. Pure.
//!
//! *Registered* counts each buffer of each ring's table: what two rings have registered counts twice. *Pinned* counts each page
//! once that lies under any of them, by the addresses of its process: one that several rings hold is pinned for all of them.

use std::collections::BTreeMap;

use tracer_ebpf::table::Range;

// A snapshot carries them.
pub use crate::sample::registered::{Registered, Share, Shares};
use crate::{kernel, sample::registered::Table};

/// Sums up.
pub fn sum<'a>(tables: impl Iterator<Item = Table<'a>>) -> Registered {
    let mut registered = Registered::default();
    let mut memory: BTreeMap<u64, Vec<(Range, u64)>> = BTreeMap::new();
    for table in tables {
        registered.rings += 1;
        let Some(buffers) = table.buffers else {
            registered.unknown_rings += 1;
            continue;
        };
        let bytes = buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.length));
        let share = Share { buffers: buffers.len() as u64, bytes, pinned: 0 };
        registered.all += share;
        *registered.cgroups.entry(table.cgroup).or_default() += share;
        memory.entry(table.mm).or_default().extend(buffers.iter().map(|buffer| (pages(buffer), table.cgroup)));
    }
    for mut ranges in memory.into_values() {
        ranges.sort_unstable_by_key(|(range, _)| (range.start, range.length));
        registered.all.pinned += union(ranges.iter().map(|(range, _)| *range));
        // Most processes are of one cgroup.
        let mut cgroups: Vec<_> = ranges.iter().map(|(_, cgroup)| *cgroup).collect();
        cgroups.sort_unstable();
        cgroups.dedup();
        for cgroup in cgroups {
            let own = ranges.iter().filter(|(_, of)| *of == cgroup).map(|(range, _)| *range);
            registered.cgroups.entry(cgroup).or_default().pinned += union(own);
        }
    }
    registered
}

/// The whole pages of a buffer.
fn pages(buffer: &Range) -> Range {
    let page = kernel::page_size();
    let start = buffer.start / page * page;
    let end = buffer.start.saturating_add(buffer.length).checked_next_multiple_of(page).unwrap_or(u64::MAX);
    Range { start, length: if buffer.length == 0 { 0 } else { end - start } }
}

/// Bytes in any of the ranges, which come by their start.
fn union(ranges: impl Iterator<Item = Range>) -> u64 {
    let (mut bytes, mut reached) = (0_u64, 0);
    for range in ranges {
        let end = range.start.saturating_add(range.length);
        bytes = bytes.saturating_add(end.saturating_sub(range.start.max(reached)));
        reached = end.max(reached);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn table(mm: u64, cgroup: u64, buffers: &[Range]) -> Table<'_> {
        Table { mm, cgroup, buffers: Some(buffers) }
    }

    fn range(start: u64, length: u64) -> Range {
        Range { start, length }
    }

    #[test]
    fn the_same_pages_on_four_rings_are_registered_four_times_and_pinned_once() {
        let buffers = [range(0x10_0000, 8192), range(0x20_0100, 100)];
        let sum = sum([1, 1, 2, 2].map(|cgroup| table(7, cgroup, &buffers)).into_iter());
        assert_eq!((sum.rings, sum.unknown_rings), (4, 0));
        assert_eq!(sum.all, Share { buffers: 8, bytes: 4 * 8292, pinned: 12288 });
        assert_eq!(sum.cgroups[&1], Share { buffers: 4, bytes: 2 * 8292, pinned: 12288 });
        assert!(sum.is_lower_bound(), "nobody has looked for what was there before");
    }

    #[test]
    fn processes_have_memory_of_their_own() {
        let buffers = [range(0x10_0000, 4096)];
        let sum = sum([table(1, 1, &buffers), table(2, 1, &buffers)].into_iter());
        assert_eq!(sum.all.pinned, 8192);
        assert_eq!(sum.cgroups[&1].pinned, 8192);
    }

    #[test]
    fn a_table_that_is_not_known_makes_a_lower_bound() {
        let whole = Registered { from_before: true, ..sum([table(1, 1, &[])].into_iter()) };
        assert!(!whole.is_lower_bound());
        assert!(Registered { lost: 1, ..whole.clone() }.is_lower_bound());
        let unknown = Table { mm: 1, cgroup: 1, buffers: None };
        let sum = Registered { from_before: true, ..sum([table(1, 1, &[]), unknown].into_iter()) };
        assert!(sum.is_lower_bound() && sum.unknown_rings == 1 && sum.rings == 2);
    }

    proptest! {
        /// Against a set of pages.
        #[test]
        fn pinned_is_what_a_set_of_pages_holds(
            tables in prop::collection::vec(
                (0_u64..3, 0_u64..3, prop::collection::vec((0_u64..0x2_0000, 0_u64..0x6000), 0..12)), 0..12)
        ) {
            let tables: Vec<_> = tables.into_iter().map(|(mm, cgroup, ranges)| {
                (mm, cgroup, ranges.into_iter().map(|(start, length)| range(start, length)).collect::<Vec<_>>())
            }).collect();
            let sum = sum(tables.iter().map(|(mm, cgroup, buffers)| table(*mm, *cgroup, buffers)));
            let page = kernel::page_size();
            let set = |of: Option<u64>| {
                let chosen = tables.iter().filter(|(_, cgroup, _)| of.is_none_or(|of| of == *cgroup));
                let pages: BTreeSet<_> = chosen.flat_map(|(mm, _, buffers)| {
                    buffers.iter().filter(|buffer| buffer.length > 0).flat_map(move |buffer| {
                        (buffer.start / page..(buffer.start + buffer.length).div_ceil(page)).map(move |page| (*mm, page))
                    })
                }).collect();
                pages.len() as u64 * page
            };
            prop_assert_eq!(sum.all.pinned, set(None));
            for (cgroup, share) in &sum.cgroups {
                prop_assert_eq!(share.pinned, set(Some(*cgroup)));
            }
            prop_assert_eq!(sum.cgroups.values().map(|share| share.bytes).sum::<u64>(), sum.all.bytes);
        }
    }
}
