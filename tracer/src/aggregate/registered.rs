//! What is registered now: from tables of buffers to sums. Pure.
//!
//! *Registered* counts each buffer of each ring's table: what two rings have registered counts twice. *Pinned* counts each page
//! once that lies under any of them, by the addresses of its process: one that several rings hold is pinned for all of them. A
//! ring may hold memory of others than its maker, and a process may map other memory at an address: the page under a buffer's
//! start tells.
//!
//! What is kept of a table is its sums and the pages under it. The sums of any table are little; of the pages, those of the
//! largest memories may be left out ([`crate::sample::registered::Content`]).

use std::cmp::Reverse;

use tracer_ebpf::table::Range;

// A snapshot carries them.
pub use crate::sample::registered::{Registered, Share, Shares};
use crate::sample::registered::{Table, end, in_order};

/// Sums up.
pub fn sum<'a>(tables: impl Iterator<Item = Table<'a>>) -> Registered {
    let mut registered = Registered::default();
    let mut memory = Vec::new();
    for table in tables {
        registered.rings += 1;
        let Some(content) = table.content else {
            registered.unknown_rings += 1;
            registered.unread_rings += u64::from(table.waits);
            continue;
        };
        let share = Share { buffers: content.buffers, bytes: content.bytes, pinned: 0 };
        registered.all += share;
        *registered.cgroups.entry(table.cgroup).or_default() += share;
        match &content.pages {
            Some(pages) => memory.extend(pages.iter().map(|pages| Memory {
                mm: table.mm,
                cgroup: table.cgroup,
                others: table.others,
                pages: *pages,
            })),
            None => registered.unpaged_rings += 1,
        }
    }
    in_order(&mut memory, |memory| memory.pages);
    memory.sort_by_key(|memory| memory.mm);
    for own in memory.chunk_by(|one, next| one.mm == next.mm) {
        let (pinned, by_guess) = union(own);
        registered.all.pinned = registered.all.pinned.saturating_add(pinned);
        registered.mixed_memories += u64::from(by_guess);
    }
    memory.sort_by_key(|memory| (memory.cgroup, memory.mm));
    for own in memory.chunk_by(|one, next| (one.cgroup, one.mm) == (next.cgroup, next.mm)) {
        let pinned = union(own).0;
        *registered.cgroups.entry(own[0].cgroup).or_default() += Share { pinned, ..Share::default() };
    }
    registered
}

/// Pages of a table.
struct Memory {
    mm: u64,
    cgroup: u64,
    /// Others than the ring's maker may have put them there.
    others: bool,
    pages: Range,
}

/// Bytes in any of the ranges of one process's addresses, which are in order. Ranges that begin at one address with another page
/// are other memory, and count for themselves: of another process, or mapped anew. The second says whether ranges were taken for
/// the same memory that may be such as well: they overlap and begin elsewhere.
fn union(memory: &[Memory]) -> (u64, bool) {
    let (mut bytes, mut far, mut overlap) = (0_u64, 0, false);
    // How far each layer of memory reaches. At each address the longest range is of the first.
    let mut layers: Vec<u64> = Vec::new();
    for same_start in memory.chunk_by(|one, next| one.pages.start == next.pages.start) {
        let memories = same_start.chunk_by(|one, next| one.pages.page == next.pages.page);
        let mut longest: Vec<_> = memories.map(|memory| end(&memory[0].pages)).collect();
        longest.sort_unstable_by_key(|end| Reverse(*end));
        let start = same_start[0].pages.start;
        overlap |= start < far;
        layers.resize(layers.len().max(longest.len()), 0);
        for (reached, end) in layers.iter_mut().zip(longest) {
            bytes = bytes.saturating_add(end.saturating_sub(start.max(*reached)));
            *reached = end.max(*reached);
            far = far.max(end);
        }
    }
    let mixed = layers.len() > 1 || memory.iter().any(|memory| memory.others);
    (bytes, overlap && mixed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::sample::registered::Content;

    fn table(mm: u64, cgroup: u64, content: &Content) -> Table<'_> {
        Table { mm, cgroup, others: false, waits: false, content: Some(content) }
    }

    /// At each page of the addresses is one and the same.
    fn range(start: u64, length: u64) -> Range {
        Range { start, length, page: start / 4096 }
    }

    fn elsewhere(start: u64, length: u64) -> Range {
        Range { page: (1 << 40) + start / 4096, ..range(start, length) }
    }

    #[test]
    fn memory_of_two_processes_at_one_address_counts_for_each() {
        let one: Vec<_> = (0..8).map(|page| range(0x10_0000 + page * 4096, 4096)).collect();
        let other: Vec<_> = (0..8).map(|page| elsewhere(0x10_0000 + page * 4096, 4096)).collect();
        let both = Content::of(&[&one[..], &other[..]].concat());
        let apart = [Content::of(&one), Content::of(&[elsewhere(0x10_0000, 8 * 4096)])];
        for contents in [vec![&both], vec![&both, &apart[0], &apart[1]], vec![&apart[0], &apart[1]]] {
            let sum = sum(contents.iter().map(|content| table(1, 1, content)));
            assert_eq!((sum.all.pinned, sum.cgroups[&1].pinned), (16 * 4096, 16 * 4096));
        }
    }

    #[test]
    fn where_it_is_not_known_whose_memory_it_is_the_sum_is_a_lower_bound() {
        let (own, inside) = (Content::of(&[range(0x10_0000, 0x8000)]), Content::of(&[elsewhere(0x10_4000, 4096)]));
        let sum_of = |others| {
            let tables = [table(1, 1, &own), Table { others, ..table(1, 1, &inside) }];
            Registered { from_before: true, ..sum(tables.into_iter()) }
        };
        assert!(!sum_of(false).is_lower_bound());
        assert!(sum_of(true).is_lower_bound() && sum_of(true).all.pinned == 0x8000);
        let behind = Content::of(&[elsewhere(0x20_0000, 4096)]);
        let tables = [table(1, 1, &own), Table { others: true, ..table(1, 1, &behind) }];
        assert!(!Registered { from_before: true, ..sum(tables.into_iter()) }.is_lower_bound());
    }

    #[test]
    fn the_same_pages_on_four_rings_are_registered_four_times_and_pinned_once() {
        let buffers = Content::of(&[range(0x10_0000, 8192), range(0x20_0100, 100)]);
        let sum = sum([1, 1, 2, 2].map(|cgroup| table(7, cgroup, &buffers)).into_iter());
        assert_eq!((sum.rings, sum.unknown_rings), (4, 0));
        assert_eq!(sum.all, Share { buffers: 8, bytes: 4 * 8292, pinned: 12288 });
        assert_eq!(sum.cgroups[&1], Share { buffers: 4, bytes: 2 * 8292, pinned: 12288 });
        assert!(sum.is_lower_bound(), "nobody has looked for what was there before");
    }

    #[test]
    fn processes_have_memory_of_their_own() {
        let buffers = Content::of(&[range(0x10_0000, 4096)]);
        let sum = sum([table(1, 1, &buffers), table(2, 1, &buffers)].into_iter());
        assert_eq!(sum.all.pinned, 8192);
        assert_eq!(sum.cgroups[&1].pinned, 8192);
    }

    #[test]
    fn a_table_that_is_not_known_makes_a_lower_bound() {
        let none = Content::of(&[]);
        let whole = Registered { from_before: true, ..sum([table(1, 1, &none)].into_iter()) };
        assert!(!whole.is_lower_bound());
        assert!(Registered { lost: 1, ..whole.clone() }.is_lower_bound());
        let unknown = Table { mm: 1, cgroup: 1, others: false, waits: false, content: None };
        let sum = Registered { from_before: true, ..sum([table(1, 1, &none), unknown].into_iter()) };
        assert!(sum.is_lower_bound() && sum.unknown_rings == 1 && sum.rings == 2);
    }

    #[test]
    fn pages_that_were_let_go_leave_what_is_registered() {
        let kept = Content::of(&[range(0x10_0000, 8192)]);
        let left = Content { pages: None, ..kept.clone() };
        let sum = sum([table(1, 1, &kept), table(2, 1, &left)].into_iter());
        assert_eq!(sum.all, Share { buffers: 2, bytes: 16384, pinned: 8192 });
        assert!(Registered { from_before: true, ..sum }.is_lower_bound());
    }

    #[test]
    fn of_pages_each_range_is_kept_once() {
        let content = Content::of(&[range(0x3000, 4096), range(0x1000, 100), range(0x1800, 0x1000), range(0x1000, 8)]);
        assert_eq!(content.pages.as_deref(), Some(&[range(0x1000, 0x3000)][..]));
        assert_eq!((content.buffers, content.bytes, content.ranges), (4, 4096 + 100 + 0x1000 + 8, 1));
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
            let contents: Vec<_> = tables.iter().map(|(mm, cgroup, buffers)| (mm, cgroup, Content::of(buffers))).collect();
            let sum = sum(contents.iter().map(|(mm, cgroup, content)| table(**mm, **cgroup, content)));
            let page = crate::memory::page_size();
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
