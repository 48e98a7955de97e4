//! Checks that the documents match the program: generated files are up to date, command lines parse, links lead
//! somewhere, figures and names match the code, and lines and the first two documents stay short.
//!
//! `UPDATE=1 cargo test --package tracer --test docs` regenerates the generated files.
#![expect(clippy::unwrap_used, reason = "a panic is the test's failure")]

mod figures;
mod markdown;
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory, error::ErrorKind};
use pinscope::{
    cli::{args::Arguments, shipped},
    sink::{prometheus::metrics_markdown, schema},
};

use markdown::Document;

/// Maximum columns of a line.
const COLUMNS: usize = 120;
/// Documents with their maximum number of words.
const LIMITS: [(&str, usize); 2] = [("README.md", 1500), ("ARCHITECTURE.md", 1500)];
/// Expected output of a test, not a document.
const EXPECTED_OUTPUT: &str = "tracer/src/sink/markdown/golden.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Paths of all files with this ending, relative to the root, without build output and hidden folders.
fn files(ending: &str) -> Vec<String> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if root.join(&path).is_dir() {
                if !["target", "node_modules"].contains(&name.as_str()) && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All documents with their names.
fn documents() -> Vec<(String, Document)> {
    let names: Vec<_> = files(".md").into_iter().filter(|name| name != EXPECTED_OUTPUT).collect();
    assert!(names.len() > 10, "{names:?}: not all documents are found");
    names.into_iter().map(|name| (name.clone(), markdown::read(&text(&name)))).collect()
}

/// Wraps words into lines of at most [`COLUMNS`]. Every line after the first begins with `indent`.
fn wrapped(words: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.trim().is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() < COLUMNS {
            line.extend([" ", word]);
        } else {
            lines.push(format!("{indent}{word}"));
        }
    }
    lines.join("\n") + "\n"
}

/// Compares a generated file with the expected content, or writes it.
fn check_or_update(name: &str, wanted: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(name), wanted).unwrap();
        return;
    }
    let present = fs::read_to_string(root().join(name)).unwrap_or_default();
    let differs = present.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| present.lines().count().min(wanted.lines().count())) + 1;
    assert!(
        present == wanted,
        "{name} is out of date from line {line} on; UPDATE=1 cargo test --package tracer --test docs regenerates it"
    );
}

#[test]
fn metrics_md_is_what_the_table_generates() {
    check_or_update("tracer/doc/metrics.md", &metrics_markdown());
}

/// Above this line of json.md people write; below it stands what is generated.
const GENERATED: &str = "<!-- What follows is generated from the types. -->\n";

#[test]
fn json_md_lists_the_keys_that_are_printed() {
    let name = "tracer/doc/json.md";
    let present = text(name);
    let (written, _) = present.split_once(GENERATED).unwrap();
    check_or_update(name, &format!("{written}{GENERATED}{}", schema::keys_markdown()));
}

#[test]
fn the_shipped_schemas_are_those_of_the_types() {
    for (command, schema) in schema::schemas() {
        let wanted = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        check_or_update(&format!("tracer/pkg/schema/{command}.schema.json"), &wanted);
    }
}

#[test]
fn the_shipped_configuration_is_what_the_command_line_defines() {
    check_or_update("tracer/pkg/pinscope.toml", &shipped::default_file());
}

#[test]
fn the_command_reference_is_what_the_command_line_defines() {
    check_or_update("tracer/doc/commands.md", &reference::reference());
}

#[test]
fn every_command_in_the_documents_parses() {
    let mut found = 0;
    for (name, document) in documents() {
        for words in commands(&document, "pinscope") {
            found += 1;
            if let Err(error) = Arguments::command().try_get_matches_from(&words) {
                // Missing arguments and requests for help are fine: the names parsed.
                let named = [
                    ErrorKind::MissingRequiredArgument,
                    ErrorKind::DisplayHelp,
                    ErrorKind::DisplayVersion,
                    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ];
                assert!(named.contains(&error.kind()), "{name}: `{}`: {error}", words.join(" "));
            }
        }
    }
    assert!(found > 40, "only {found} commands found: the documents are not read as they are written");
}

/// xtask's tasks are an enum matched in its `main.rs`; options are fields in the files of the tasks.
#[test]
fn every_task_in_the_documents_is_one() {
    let tasks = text("xtask/src/main.rs").to_lowercase();
    let sources: String =
        files(".rs").iter().filter(|name| name.starts_with("xtask/")).map(|name| text(name)).collect();
    let mut found = 0;
    for (name, document) in documents() {
        for words in commands(&document, "cargo xtask") {
            let task = words.get(2).unwrap();
            assert!(tasks.contains(&format!("task::{task}")), "{name}: there is no `cargo xtask {task}`");
            let options =
                words.iter().skip(3).take_while(|word| *word != "--").filter_map(|word| word.strip_prefix("--"));
            for option in options {
                let field = option.split('=').next().unwrap_or_default().replace('-', "_");
                assert!(sources.contains(&format!(" {field}: ")), "{name}: cargo xtask has no option --{option}");
            }
            found += 1;
        }
    }
    assert!(found > 10, "only {found} tasks found");
}

#[test]
fn every_option_in_the_documents_is_one() {
    let known = options_of(&Arguments::command());
    // Options of xtask, cargo, the generator of known registrations and the renderer of dashboards.
    let others = [
        "--full",
        "--kernel",
        "--quick",
        "--seconds",
        "--host-only",
        "--cured",
        "--message-format",
        "--end",
        "--minutes",
        "--width",
        "--set",
    ];
    for (name, document) in documents() {
        for code in &document.inline {
            let option = code.split([' ', '=', ',']).next().unwrap_or_default();
            // Excludes errnos such as `-EFAULT`.
            let is_option = option.starts_with("--") || (option.starts_with('-') && option.len() == 2);
            let is_known = known.iter().any(|known| known == option) || others.contains(&option);
            assert!(!is_option || is_known, "{name}: pinscope has no option `{option}`");
        }
    }
}

fn options_of(command: &Command) -> Vec<String> {
    let mut options = vec!["--help".to_owned(), "--version".to_owned(), "--".to_owned()];
    for argument in command.get_arguments().chain(command.get_subcommands().flat_map(Command::get_arguments)) {
        options.extend(argument.get_long().map(|long| format!("--{long}")));
        options.extend(argument.get_short().map(|short| format!("-{short}")));
    }
    options
}

/// Command lines in code blocks and back-ticks that begin with these words, split into words.
fn commands(document: &Document, beginning: &str) -> Vec<Vec<String>> {
    let blocks = document.blocks.iter().flat_map(|(_, code)| code.lines());
    let lines = blocks.chain(document.inline.iter().map(String::as_str));
    let commands = lines.filter_map(|line| {
        let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
        let line = line.split([';', '|', '>', '&', '#']).next().unwrap_or_default();
        // Placeholders are no arguments: `pinscope man <FOLDER>`, `pinscope report [OPTIONS]`.
        let words = line.split_whitespace().take_while(|word| !word.starts_with(['<', '[']));
        let words: Vec<_> = words.map(str::to_owned).collect();
        let begins = words.join(" ").starts_with(&format!("{beginning} "));
        // A line of output begins with the version (`pinscope 0.1.0: ...`) or with other words (`pinscope: attached`).
        let is_output = words.get(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        (begins && !is_output).then_some(words)
    });
    commands.collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut found = 0;
    for (name, document) in &documents {
        let folder = Path::new(name).parent().unwrap();
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.clone() } else { normal(&folder.join(file)) };
            assert!(root().join(&target).exists(), "{name} links to {link}, which is not there");
            let anchors = documents.iter().find(|(name, _)| *name == target).map(|(_, document)| &document.anchors);
            let is_there = anchor.is_empty() || anchors.is_some_and(|anchors| anchors.iter().any(|a| a == anchor));
            assert!(is_there, "{name} links to {link}, and {target} has no such heading");
            found += 1;
        }
    }
    assert!(found > 40, "only {found} links found");
}

/// Resolves `a/../b` to `b`.
fn normal(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.to_str().unwrap().split('/') {
        match part {
            "." => (),
            ".." => parts.truncate(parts.len() - 1),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Only lines that cannot be broken, such as a long address, may be longer.
#[test]
fn lines_are_short() {
    for (name, _) in documents() {
        for (number, line) in text(&name).lines().enumerate() {
            let columns = line.chars().count();
            let breakable = line.trim_start_matches(['-', ' ']).contains(' ');
            assert!(columns <= COLUMNS || !breakable, "{name}:{}: {columns} columns", number + 1);
        }
    }
}

#[test]
fn the_first_documents_are_short() {
    for (name, limit) in LIMITS {
        let words = text(name).split_whitespace().count();
        assert!(words <= limit, "{name} has {words} words; {limit} at most: move some to tracer/doc");
    }
}

/// A source file in back-ticks exists, as a whole path or the end of one. The item of a `module::item` occurs in the
/// source.
#[test]
fn every_source_that_is_named_exists() {
    let sources = files(".rs");
    let all: String = sources.iter().map(|name| text(name)).collect();
    for (name, document) in documents() {
        for code in &document.inline {
            let is_source = Path::new(code).extension().is_some_and(|extension| extension == "rs");
            let is_path = is_source && !code.contains([' ', '*']);
            let known = sources.iter().any(|source| source == code || source.ends_with(&format!("/{code}")));
            assert!(!is_path || known, "{name} names `{code}`, which is not there");
            if let Some((_, item)) = code.rsplit_once("::").filter(|_| !code.contains([' ', '(', '"'])) {
                assert!(all.contains(item), "{name} names `{code}`; nothing is called {item}");
            }
        }
    }
}

/// Each item under `## How to add ...` names a file and then content of that file.
#[test]
fn the_recipes_name_what_is_there() {
    let document = markdown::read(&text("ARCHITECTURE.md"));
    let recipes: Vec<_> = document.items.iter().filter(|(heading, _)| heading.starts_with("How to add")).collect();
    let mut named = 0;
    for (heading, code) in recipes {
        let Some(file) = code.first() else { continue };
        let content = if file.ends_with('/') {
            assert!(root().join(file).is_dir(), "{heading}: there is no folder {file}");
            String::new()
        } else {
            text(file)
        };
        for item in &code[1..] {
            assert!(content.contains(item.as_str()), "{heading}: {file} has no {item}");
            named += 1;
        }
    }
    assert!(named > 8, "only {named} names found under How to add");
}
