//! Lines of a page that is `width` columns wide.

use crate::human::{columns, cut, hanging, padded};

/// A page under way. No line that leaves it is wider than it.
pub(in crate::sink) struct Page {
    width: usize,
    text: String,
}

impl Page {
    pub(in crate::sink) fn new(width: usize) -> Self {
        Self { width, text: String::new() }
    }

    pub(in crate::sink) fn width(&self) -> usize {
        self.width
    }

    /// A line, cut where it is too long.
    pub(in crate::sink) fn line(&mut self, line: &str) {
        self.text.push_str(cut(line, self.width).trim_end());
        self.text.push('\n');
    }

    pub(in crate::sink) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A paragraph, broken at spaces; `first` begins its first line and its width indents the others.
    pub(in crate::sink) fn paragraph(&mut self, first: &str, text: &str) {
        for line in hanging(first, columns(first), text, self.width) {
            self.line(&line);
        }
    }

    /// A section's title and the heads of its right-aligned columns.
    pub(in crate::sink) fn section(&mut self, title: &str, columns: &[(&str, usize)]) {
        self.blank();
        let heads: Vec<_> = columns.iter().map(|(head, width)| ((*head).to_owned(), *width)).collect();
        self.row(title, &heads);
    }

    /// A row: what it is about on the left, right-aligned cells of the given widths on the right.
    pub(in crate::sink) fn row(&mut self, label: &str, cells: &[(String, usize)]) {
        let right = cells.iter().map(|(cell, width)| format!("{cell:>width$}")).collect::<Vec<_>>().concat();
        let room = self.width.saturating_sub(columns(&right));
        // A cell that fills its column still stands apart from the label.
        let label = cut(label, room.saturating_sub(1));
        self.line(&(padded(&label, room) + &right));
    }

    pub(in crate::sink) fn into_text(self) -> String {
        self.text
    }
}

/// A bar of `share` (0 to 1) of `width` columns; something is never shown as nothing.
pub(in crate::sink) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { eighths };
    let mut bar = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        bar.extend(EIGHTHS.get(part));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_eighths_of_a_column() {
        assert_eq!([bar(0.0, 4), bar(1.0, 4), bar(0.5, 4)], ["", "████", "██"]);
        assert_eq!([bar(0.000_01, 4), bar(0.28, 4), bar(7.0, 2)], ["▏", "█▏", "██"]);
    }

    #[test]
    fn a_paragraph_is_broken_at_spaces() {
        let mut page = Page::new(12);
        page.paragraph("- ", "one two three four");
        assert_eq!(page.into_text(), "- one two\n  three four\n");
    }

    #[test]
    fn a_row_aligns_its_cells_and_cuts_its_label() {
        let mut page = Page::new(16);
        page.row("label too long", &[("12".to_owned(), 6)]);
        assert_eq!(page.into_text(), "label to…     12\n");
    }
}
