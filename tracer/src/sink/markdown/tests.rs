use proptest::prelude::*;

use super::*;
use crate::{
    aggregate::Habits,
    answer::{
        fixture::{a_snapshot, context, habits, process},
        tests::any_snapshot,
    },
};

fn meta() -> Meta {
    Meta {
        origin: context().origin,
        scope: "the command and its descendants".to_owned(),
        command: Some("fio --name=x --ioengine=io_uring --fixedbufs=1 --mem=mmap --rw=randread --size=1G".to_owned()),
        exit_code: Some(0),
        left_running: Some(0),
        started: Some("2026-11-23T20:00:00.000000Z".to_owned()),
    }
}

#[test]
fn a_report_to_be_pasted() {
    let faulted = Habits {
        minor_faults: Some(4096),
        faulting_pin_ns: Some(6_000_000),
        faulting_bytes: Some(16 << 20),
        ..habits()
    };
    let snapshot = Snapshot { processes: Some(vec![process(42, "fio", faulted)]), ..a_snapshot() };
    let report = report(&snapshot, &meta(), &Answers::new(&snapshot, &context(), true));
    assert!(report == include_str!("golden.md"), "the report changed; it is now\n{report}");
}

#[test]
fn a_bar_in_a_name_does_not_end_its_cell() {
    assert_eq!((cell("a|b"), cell("plain")), ("a/b".to_owned(), "plain".to_owned()));
}

/// What a parser makes of a text: its words, if it is nothing but that.
fn rendered(markdown: &str) -> Result<String, String> {
    use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
    let mut text = String::new();
    for event in Parser::new_ext(
        markdown,
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_FOOTNOTES,
    ) {
        match event {
            Event::Text(words) => text.push_str(&words),
            Event::SoftBreak => text.push(' '),
            Event::Start(Tag::Paragraph) | Event::End(TagEnd::Paragraph) => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(text)
}

/// As a parser of another's sees it.
fn is_plain(text: &str) {
    let mut page = Page::new(WIDTH);
    prose(&mut page, "", text);
    let (markdown, wanted) = (page.into_text(), text.replace('|', "/").replace('`', "'"));
    let words = wanted.split_whitespace().collect::<Vec<_>>().join(" ");
    // Smart punctuation and the like are not ours to prevent.
    assert_eq!(rendered(&markdown).as_deref(), Ok(words.as_str()), "{markdown}");
}

#[test]
fn names_that_are_markup_are_words() {
    for name in [
        "<script>alert(1)</script>",
        "<!-- gone",
        "[x](http://evil.example)",
        "![x](http://evil.example)",
        "<http://evil.example>",
        "<{@a>",
        "**bold** _em_ __strong__ ~~no~~ `code` ``",
        "&lt; &#60; &copy",
        "# title",
        "a # b ## c",
        "> quote",
        "- item + item * item 1. one 1) one",
        "--- === *** ___",
        "a_b _c d_ io_pin_pages",
        "back\\slash \\* \\",
        "[ref]: http://evil.example",
        "a|b",
    ] {
        is_plain(name);
    }
    for link in ["http://evil.example", "https://evil.example", "www.evil.example"] {
        assert!(!escaped(link).contains(link), "{link}");
    }
}

proptest! {
    #[test]
    fn any_name_is_words(text in "[ -~]{1,30}( [ -~]{1,30}){0,2}") {
        is_plain(text.trim());
    }

    #[test]
    fn no_line_is_wider_than_a_mail(snapshot in any_snapshot(), text in "\\PC{0,120}") {
        let meta = Meta { scope: text.clone(), command: Some(text), ..meta() };
        let report = report(&snapshot, &meta, &Answers::new(&snapshot, &context(), true));
        for line in report.lines() {
            prop_assert!(line.chars().count() <= WIDTH, "{line}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            // Every row of a table is whole.
            prop_assert!(!line.starts_with('|') || line.ends_with('|'), "{line}");
        }
    }
}
