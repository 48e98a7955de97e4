//! A minimal Markdown reader for the tests: code, links, headings.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The parts of a document that the tests check.
#[derive(Default)]
pub struct Document {
    /// Code blocks, each with its fence's language.
    pub blocks: Vec<(String, String)>,
    /// Code in back-ticks, outside of blocks.
    pub inline: Vec<String>,
    /// Targets of links and images.
    pub links: Vec<String>,
    /// Anchors that a link's `#` can refer to: headings in GitHub's form, and `<a id="...">`.
    pub anchors: Vec<String>,
    /// List items and table rows: the heading above, and their inline code in order.
    pub items: Vec<(String, Vec<String>)>,
}

/// Reads a document.
pub fn read(text: &str) -> Document {
    let mut document = Document::default();
    let (mut block, mut heading, mut above) = (None, None::<String>, String::new());
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language =
                    if let CodeBlockKind::Fenced(language) = kind { language.to_string() } else { String::new() };
                block = Some((language, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(level)) => {
                let title = heading.take().unwrap_or_default();
                document.anchors.push(anchor(&title));
                if level > HeadingLevel::H1 {
                    above = title;
                }
            }
            Event::Start(Tag::Item | Tag::TableRow) => document.items.push((above.clone(), Vec::new())),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document.links.push(dest_url.to_string());
            }
            Event::Text(words) => {
                if let Some((_, code)) = &mut block {
                    code.push_str(&words);
                } else if let Some(title) = &mut heading {
                    title.push_str(&words);
                }
            }
            Event::Code(code) => {
                if let Some(title) = &mut heading {
                    title.push_str(&code);
                }
                if let Some((_, item)) = document.items.last_mut() {
                    item.push(code.to_string());
                }
                document.inline.push(code.to_string());
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                let ids = html.split("id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
                document.anchors.extend(ids);
            }
            _ => (),
        }
    }
    document
}

/// Turns `Waiting for mmap_lock` into `waiting-for-mmap_lock`.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn a_document_is_read() {
    let text = "# A `b` c\n\n- `x` in `y`\n\n```sh\npinscope doctor\n```\n\n[t](u.md#v) <a id=\"here\"></a>\n";
    let document = read(text);
    assert_eq!(document.blocks, [("sh".to_owned(), "pinscope doctor\n".to_owned())]);
    assert_eq!(document.inline, ["b", "x", "y"]);
    assert_eq!(document.links, ["u.md#v"]);
    assert_eq!(document.anchors, ["a-b-c", "here"]);
    assert_eq!(document.items[0].1, ["x", "y"]);
}
