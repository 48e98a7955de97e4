//! Documents in the packages. They share one folder, and their links point to packaged files.

use std::path::{Path, PathBuf};

/// Folder of the installed documents, relative to the root of the tree.
pub const FOLDER: &str = "usr/share/doc/pinscope";
/// Documents outside [`SOURCE`].
pub const SINGLE: [&str; 2] = ["README.md", "SECURITY.md"];
/// Folder of which every document and picture is packaged.
pub const SOURCE: &str = "tracer/doc";
/// Files that are packaged elsewhere, with their paths relative to [`FOLDER`]. The changelog is absent: its name
/// differs between the packages.
const ELSEWHERE: [(&str, &str); 2] =
    [("dashboards/README.md", "../../pinscope/README.md"), ("dashboards/RUNBOOK.md", "../../pinscope/RUNBOOK.md")];

/// Text of the document `name` as packaged. A link to a file that is not packaged is replaced by its text.
pub fn packaged(name: &str, text: &str) -> String {
    let mut packaged = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, target, after)) = next_link(rest) {
        match installed(name, target) {
            Some(place) => packaged.extend([before, "](", &place, ")"]),
            None => packaged.push_str(&without_bracket(before)),
        }
        rest = after;
    }
    packaged + rest
}

/// Text before the next `](`, the link's target, and the text after it.
fn next_link(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("](")?;
    let (target, after) = rest.split_once(')')?;
    Some((before, target, after))
}

/// Removes the bracket that opens the link at the end of this text.
fn without_bracket(text: &str) -> String {
    text.rsplit_once('[').map_or_else(|| text.to_owned(), |(before, words)| format!("{before}{words}"))
}

/// Path in the packages of the target of a link in `name`.
fn installed(name: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with('#') {
        return Some(target.to_owned());
    }
    let (file, anchor) = target.split_once('#').map_or((target, String::new()), |(file, at)| (file, format!("#{at}")));
    let file = resolved(name, file);
    let flat = file.strip_prefix(SOURCE).map(|file| file.trim_start_matches('/'));
    let single = SINGLE.into_iter().find(|single| *single == file);
    let elsewhere = ELSEWHERE.into_iter().find(|(from, _)| *from == file).map(|(_, to)| to);
    flat.or(single).or(elsewhere).map(|place| format!("{place}{anchor}"))
}

/// Resolves `../../README.md` in `tracer/doc/guide.md` to `README.md`.
fn resolved(name: &str, file: &str) -> String {
    let mut path = PathBuf::from(name);
    path.pop();
    for part in Path::new(file) {
        if part == ".." {
            path.pop();
        } else if part != "." {
            path.push(part);
        }
    }
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::root;

    #[test]
    fn links_lead_to_what_is_packaged() {
        let text =
            "[a](tracer/doc/guide.md#b) [c](#d) [the map](ARCHITECTURE.md), ![p](tracer/doc/p.svg) [e](https://f)";
        let wanted = "[a](guide.md#b) [c](#d) the map, ![p](p.svg) [e](https://f)";
        assert_eq!(packaged("README.md", text), wanted);
        let text = "[r](../../README.md) [d](../../dashboards/README.md) [l](../../CHANGELOG.md#x) [k](json.md)";
        let wanted = "[r](README.md) [d](../../pinscope/README.md) l [k](json.md)";
        assert_eq!(packaged("tracer/doc/guide.md", text), wanted);
    }

    #[test]
    fn every_link_of_a_packaged_document_leads_to_a_packaged_file() {
        let folder = fs::read_dir(root().join(SOURCE)).unwrap().map(|entry| entry.unwrap().file_name());
        let folder: Vec<_> = folder.map(|name| name.into_string().unwrap()).collect();
        let of_folder =
            folder.iter().filter(|name| name.strip_suffix(".md").is_some()).map(|name| format!("{SOURCE}/{name}"));
        for name in of_folder.chain(SINGLE.map(str::to_owned)) {
            let text = packaged(&name, &fs::read_to_string(root().join(&name)).unwrap());
            let mut rest = text.as_str();
            while let Some((_, target, after)) = next_link(rest) {
                let file = target.split('#').next().unwrap_or_default();
                let is_known = file.is_empty()
                    || file.contains("://")
                    || folder.iter().any(|known| known == file)
                    || SINGLE.contains(&file)
                    || ELSEWHERE.iter().any(|(_, to)| *to == file);
                assert!(is_known, "{name} is packaged with a link to {target}");
                rest = after;
            }
        }
    }
}
