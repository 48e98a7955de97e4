//! Figures for people: at most three digits that matter, and a unit. None is longer than nine characters.

use std::{borrow::Cow, ffi::CStr};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Counts: exact with separators below a million (`12,345`), then `1.23 M`.
pub(crate) fn count(value: u64) -> String {
    if value >= 1_000_000 {
        return scaled(value as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"], " ");
    }
    let (thousands, rest) = (value / 1000, value % 1000);
    if thousands == 0 { rest.to_string() } else { format!("{thousands},{rest:03}") }
}

/// Bytes in powers of 1,024: `512 B`, `4.00 KiB`.
pub(crate) fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], " ")
}

/// Bytes in a narrow column: `4.00K`.
pub(crate) fn short_bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["", "K", "M", "G", "T", "P", "E"], "")
}

/// Nanoseconds: `850 ns`, `41.2 µs`, `1.30 ms`, `2.10 s`, then `5.0 min`, hours and days.
pub(crate) fn duration(ns: u64) -> String {
    time(ns, " ")
}

/// Nanoseconds in a narrow column: `41.2µs`.
pub(crate) fn short_duration(ns: u64) -> String {
    time(ns, "")
}

fn time(ns: u64, gap: &str) -> String {
    const STEPS: [(f64, &str); 3] = [(86_400.0, "d"), (3600.0, "h"), (120.0, "min")];
    let seconds = ns as f64 / 1e9;
    match STEPS.iter().find(|(least, _)| seconds >= *least) {
        Some((_, "min")) => format!("{}{gap}min", three_digits(seconds / 60.0)),
        Some((one, unit)) => format!("{}{gap}{unit}", three_digits(seconds / one)),
        None => scaled(ns as f64, 1000.0, &["ns", "µs", "ms", "s"], gap),
    }
}

/// A share (0 to 1) in percent; 100 % and 0 % only where it is so.
pub(crate) fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round();
    if share > 0.0 && tenths < 1.0 {
        "<0.1%".to_owned()
    } else if share < 1.0 && tenths >= 1000.0 {
        ">99.9%".to_owned()
    } else if share >= 1.0 {
        "100%".to_owned()
    } else {
        format!("{:.1}%", tenths / 10.0)
    }
}

/// How often: `312 times a second`, or below one `once in 3.20 s`. `rate` is per second.
pub(crate) fn how_often(rate: f64) -> String {
    if rate >= 1.0 || rate <= 0.0 {
        return format!("{} times a second", number(rate));
    }
    format!("once in {}", duration((1e9 / rate) as u64))
}

/// A number that is no count: `0.25`, `12.8`, `312`, `1.20 M`.
pub(crate) fn number(value: f64) -> String {
    if value < 999.5 { three_digits(value) } else { count(value.round() as u64) }
}

/// Words with commas, and `and` before the last.
pub(crate) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `count` of something, with the plural's `s`.
pub(crate) fn plural(value: u64, noun: &str) -> String {
    let end = if value == 1 { "" } else { "s" };
    format!("{} {noun}{end}", count(value))
}

/// What a program named itself, safe for a terminal: one column a character.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_ascii_graphic() || char == ' ' { char } else { '?' }).collect()
}

/// Whether a character shows nothing of itself: controls, marks that turn the text's direction, joiners, separators of lines.
pub(crate) fn is_unseen(character: char) -> bool {
    let formats = matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}');
    character.is_control() || formats
}

/// A name from outside with a replacement character for each that shows nothing of itself.
pub(crate) fn seen(name: &str) -> String {
    name.chars().map(|character| if is_unseen(character) { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// A name in a field of fixed length, up to its first zero byte; bytes that are not UTF-8 are replaced.
pub(crate) fn field(bytes: &[u8]) -> Cow<'_, str> {
    CStr::from_bytes_until_nul(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), CStr::to_string_lossy)
}

/// How many columns of a terminal `text` fills: a name may have letters that fill two, or none.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// `text` in at most `width` columns, cut with an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |letter: &char| {
        let left = room.checked_sub(letter.width().unwrap_or(0));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// `text` with blanks behind it up to `width` columns.
pub(crate) fn padded(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(columns(text));
    format!("{text}{:blanks$}", "")
}

fn scaled(value: f64, step: f64, units: &[&str], gap: &str) -> String {
    let mut value = value;
    let mut steps = 0;
    // 999.5 would be rounded to a fourth digit; 1,000 to 1,023 of a binary unit are shown as they are.
    while value >= step - 0.5 && steps + 1 < units.len() {
        value /= step;
        steps += 1;
    }
    let number = if steps == 0 { format!("{value:.0}") } else { three_digits(value) };
    let unit = units.get(steps).copied().unwrap_or_default();
    if unit.is_empty() { number } else { format!("{number}{gap}{unit}") }
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Words in lines of at most `width` columns; a longer word has a line of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    lines(text, plain_options(width).break_words(false))
}

/// Words in lines of at most `width` columns. `first` begins the first line, `hang` blanks the others; a word that fits no
/// line is cut up.
pub(crate) fn hanging(first: &str, hang: usize, text: &str, width: usize) -> Vec<String> {
    let blanks = " ".repeat(hang);
    lines(text, plain_options(width).initial_indent(first).subsequent_indent(&blanks))
}

/// Breaks at blanks only, since a hyphen may be part of an option or a name.
fn plain_options<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

fn lines(text: &str, options: textwrap::Options<'_>) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    textwrap::wrap(&text, options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_exact_below_a_million() {
        assert_eq!([0, 7, 1000, 65_530, 999_999].map(count), ["0", "7", "1,000", "65,530", "999,999"]);
        assert_eq!([1_000_000, 1_234_567, u64::MAX].map(count), ["1.00 M", "1.23 M", "18.4 E"]);
    }

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!([0, 512, 4096, 1 << 20].map(bytes), ["0 B", "512 B", "4.00 KiB", "1.00 MiB"]);
        assert_eq!([1023, 1024, 1_048_064, u64::MAX].map(bytes), ["1023 B", "1.00 KiB", "1.00 MiB", "16.0 EiB"]);
        assert_eq!(short_bytes(131_072), "128K");
    }

    #[test]
    fn durations_have_the_unit_that_suits() {
        assert_eq!([0, 850, 41_234, 1_300_000].map(duration), ["0 ns", "850 ns", "41.2 µs", "1.30 ms"]);
        assert_eq!(
            [999_999, 2_100_000_000, 300_000_000_000, 7_200_000_000_000].map(duration),
            ["1.00 ms", "2.10 s", "5.00 min", "2.00 h"]
        );
        assert_eq!(short_duration(41_234), "41.2µs");
    }

    #[test]
    fn all_and_nothing_are_said_only_where_they_are_so() {
        assert_eq!([0.0, 1.0, 0.5].map(percent), ["0.0%", "100%", "50.0%"]);
        assert_eq!([0.000_01, 0.999_99].map(percent), ["<0.1%", ">99.9%"]);
    }

    #[test]
    fn what_a_terminal_might_obey_is_masked() {
        assert_eq!(plain("a\x1b[2Jé"), "a?[2J?");
        assert_eq!((cut("abcdef", 4), cut("abcd", 4)), ("abc…".to_owned(), "abcd".to_owned()));
    }

    #[test]
    fn a_field_ends_at_its_first_zero_or_is_full() {
        assert_eq!([field(b"fio\0x"), field(b"full"), field(b"\xff\0")], ["fio", "full", "\u{fffd}"]);
    }

    #[test]
    fn letters_may_be_two_columns_wide_or_none() {
        assert_eq!([columns("漢字"), columns("e\u{301}")], [4, 1]);
        assert_eq!((cut("漢字漢字", 6), padded("漢字", 6)), ("漢字…".to_owned(), "漢字  ".to_owned()));
    }

    proptest! {
        #[test]
        fn none_is_wider_than_its_column(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            for text in [count(value), bytes(value), duration(value)] {
                prop_assert!(text.chars().count() <= 9, "{text}");
            }
            for text in [short_bytes(value), short_duration(value)] {
                prop_assert!(text.chars().count() <= 8, "{text}");
            }
        }
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("aa bb  cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrapped("long", 2), ["long"]);
        assert_eq!(wrapped("a --no-lookups", 8), ["a", "--no-lookups"]);
        assert_eq!(hanging("- ", 4, "one two three", 9), ["- one two", "    three"]);
        assert_eq!(hanging("", 1, "abcdef g", 4), ["abc", " def", " g"]);
    }
}
