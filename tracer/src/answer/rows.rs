//! The cells of what buffers cost, added up into rows (Q2).

use std::collections::BTreeMap;

use super::evidence::share;
use crate::aggregate::CostCell;

/// Cells of one number of VMAs, or of one size, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// The least and the most of what the row is about.
    pub(super) from: u64,
    /// Inclusive.
    pub(super) to: u64,
    pub(super) buffers: u64,
    pub(super) vmas: u64,
    pub(super) pin_ns: u64,
    /// Buffers whose pass was timed.
    pub(super) passes: u64,
    pub(super) pass_vmas: u64,
    pub(super) pass_ns: u64,
    pub(super) faults: Option<u64>,
    pub(super) slow: Option<u64>,
    pub(super) slow_ns: Option<u64>,
}

impl Row {
    /// Nanoseconds in the pin of one buffer.
    pub(super) fn pin_each(&self) -> Option<u64> {
        self.pin_ns.checked_div(self.buffers)
    }

    /// Nanoseconds of the pass over the VMAs of one buffer.
    pub(super) fn walk_each(&self) -> Option<u64> {
        self.pass_ns.checked_div(self.passes)
    }

    /// Nanoseconds of the pass over one VMA; the pass's own beginning is in it.
    pub(super) fn walk_per_vma(&self) -> Option<u64> {
        self.pass_ns.checked_div(self.pass_vmas)
    }

    /// The pass as a share of the pin.
    pub(super) fn walk_share(&self) -> Option<f64> {
        let (pass, pin) = (each(self.pass_ns, self.passes)?, each(self.pin_ns, self.buffers)?);
        (pin > 0.0).then(|| pass / pin)
    }

    /// The share of the pins that made a look-up.
    pub(super) fn slow_share(&self) -> Option<f64> {
        share(self.slow?, self.buffers)
    }

    /// VMAs at which the pass would cost as much as the pin of such a buffer costs now. More VMAs make the pin dearer
    /// too, so it is a lower bound.
    pub(super) fn break_even(&self) -> Option<u64> {
        let (pin, vma) = (each(self.pin_ns, self.buffers)?, each(self.pass_ns, self.pass_vmas)?);
        (pin > 0.0 && vma > 0.0).then(|| (pin / vma).ceil().max(1.0) as u64)
    }

    /// Whether the pass cost as much as the pin, or more.
    pub(super) fn crossed(&self) -> bool {
        self.walk_share().is_some_and(|share| share >= 1.0)
    }

    fn add(&mut self, cell: &CostCell) {
        let plus = |a: u64, b: u64| a.saturating_add(b);
        let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        self.buffers = plus(self.buffers, cell.buffers);
        self.vmas = plus(self.vmas, cell.vmas);
        self.pin_ns = plus(self.pin_ns, cell.pin_ns);
        self.passes = plus(self.passes, cell.passes);
        self.pass_vmas = plus(self.pass_vmas, cell.pass_vmas);
        self.pass_ns = plus(self.pass_ns, cell.pass_ns);
        self.faults = both(self.faults, cell.faults);
        self.slow = both(self.slow, cell.slow);
        self.slow_ns = both(self.slow_ns, cell.slow_ns);
    }
}

/// Of one of `count` on average.
fn each(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

/// Rows by number of VMAs, the fewest first; without those of no buffer.
pub(super) fn by_vmas(costs: &[CostCell]) -> Vec<Row> {
    gather(costs, |cell| (cell.vmas_from, cell.vmas_to))
}

/// Rows by size in pages of 4 KiB, the smallest first.
pub(super) fn by_pages(costs: &[CostCell]) -> Vec<Row> {
    gather(costs, |cell| (cell.pages_from, cell.pages_to))
}

/// All of it as one row.
pub(super) fn total(costs: &[CostCell]) -> Row {
    gather(costs, |_| (0, u64::MAX)).pop().unwrap_or_default()
}

fn gather(costs: &[CostCell], key: fn(&CostCell) -> (u64, u64)) -> Vec<Row> {
    let mut rows: BTreeMap<(u64, u64), Row> = BTreeMap::new();
    for cell in costs.iter().filter(|cell| cell.buffers > 0) {
        let (from, to) = key(cell);
        let empty = Row { from, to, faults: Some(0), slow: Some(0), slow_ns: Some(0), ..Row::default() };
        rows.entry((from, to)).or_insert(empty).add(cell);
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(vmas: u64, pages: u64, buffers: u64, pin_ns: u64, pass_ns: u64) -> CostCell {
        CostCell {
            vmas_from: vmas,
            vmas_to: vmas * 2 - 1,
            pages_from: pages,
            pages_to: pages * 2 - 1,
            buffers,
            vmas: vmas * buffers,
            pin_ns,
            passes: buffers,
            pass_vmas: vmas * buffers,
            pass_ns,
            slow: Some(buffers / 2),
            slow_ns: Some(pin_ns / 2),
            ..CostCell::default()
        }
    }

    #[test]
    fn cells_add_up_by_vmas_and_by_size() {
        let costs = [cell(1, 1, 10, 1000, 500), cell(1, 64, 10, 50_000, 500), cell(64, 64, 2, 20_000, 30_000)];
        let vmas = by_vmas(&costs);
        assert_eq!(
            vmas.iter().map(|row| (row.from, row.buffers, row.pin_ns)).collect::<Vec<_>>(),
            [(1, 20, 51_000), (64, 2, 20_000)]
        );
        assert_eq!((vmas[0].crossed(), vmas[1].crossed()), (false, true));
        assert_eq!(by_pages(&costs).iter().map(|row| row.buffers).collect::<Vec<_>>(), [10, 12]);
        assert_eq!(total(&costs).buffers, 22);
    }

    #[test]
    fn the_pass_costs_as_much_as_the_pin_at_their_quotient() {
        // 100 ns a pin, 50 ns a VMA.
        assert_eq!(by_pages(&[cell(1, 1, 10, 1000, 500)])[0].break_even(), Some(2));
        assert_eq!(by_pages(&[cell(1, 1, 10, 1010, 500)])[0].break_even(), Some(3));
        assert_eq!(by_pages(&[cell(1, 1, 10, 0, 500)])[0].break_even(), None);
        assert_eq!(by_pages(&[cell(1, 1, 10, 1000, 0)])[0].break_even(), None);
    }

    #[test]
    fn a_pass_that_was_not_timed_is_in_no_mean() {
        let row = total(&[CostCell { passes: 5, pass_vmas: 5, ..cell(1, 1, 10, 1000, 250) }]);
        assert_eq!((row.pin_each(), row.walk_each(), row.walk_per_vma()), (Some(100), Some(50), Some(50)));
        assert_eq!((row.walk_share(), row.break_even(), row.crossed()), (Some(0.5), Some(2), false));
        let untimed = total(&[CostCell { passes: 0, pass_vmas: 0, ..cell(1, 1, 10, 1000, 0) }]);
        assert_eq!((untimed.walk_each(), untimed.walk_share(), untimed.crossed()), (None, None, false));
    }

    #[test]
    fn what_one_cell_does_not_know_the_row_does_not() {
        let costs = [cell(1, 1, 10, 1000, 500), CostCell { slow: None, ..cell(1, 2, 1, 100, 50) }];
        assert_eq!((by_vmas(&costs)[0].slow, by_pages(&costs)[0].slow), (None, Some(5)));
    }

    proptest! {
        #[test]
        fn rows_hold_what_the_cells_hold(
            cells in prop::collection::vec((0_u32..8, 0_u32..8, 0_u64..100, 0_u64..1_000_000, 0_u64..1_000_000), 0..30),
        ) {
            let costs: Vec<_> = cells.iter().map(|(v, p, n, pin, walk)| cell(1 << v, 1 << p, *n, *pin, *walk)).collect();
            let used: u64 = costs.iter().filter(|cell| cell.buffers > 0).map(|cell| cell.pin_ns).sum();
            for rows in [by_vmas(&costs), by_pages(&costs)] {
                prop_assert_eq!(rows.iter().map(|row| row.pin_ns).sum::<u64>(), used);
                prop_assert!(rows.is_sorted_by_key(|row| row.from));
                for row in rows {
                    let reached = row.break_even().is_none_or(|vmas| {
                        vmas as f64 * row.pass_ns as f64 / row.pass_vmas as f64 >= row.pin_ns as f64 / row.buffers as f64 * 0.999
                    });
                    prop_assert!(reached, "{row:?}");
                }
            }
        }
    }
}
