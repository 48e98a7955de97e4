//! The documents say what the program does: METRICS.md and the README's reference are what the code generates, every
//! command line in them parses, and every link leads somewhere.
//!
//! `UPDATE=1 cargo test --package tracer --test docs` writes what is generated.
#![expect(clippy::unwrap_used, reason = "a panic is the test's failure")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, CommandFactory, error::ErrorKind};
use pinscope::{
    cli::{args::Arguments, shipped},
    sink::prometheus::metrics_markdown,
};

const BEGIN: &str = "<!-- reference: generated from the command line's definition; do not edit -->\n";
const END: &str = "<!-- reference: end -->\n";

/// Where commands and links are checked.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "METRICS.md",
    "dashboards/README.md",
    "dashboards/RUNBOOK.md",
    "tracer/pkg/kubernetes/README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What of a document was written by hand.
fn written(name: &str) -> String {
    let text = read(name);
    let Some((before, rest)) = text.split_once(BEGIN) else { return text };
    let after = rest.split_once(END).map(|(_, after)| after).unwrap_or_default();
    format!("{before}{after}")
}

/// Holds a document against what it should be, or makes it so.
fn check_or_update(name: &str, present: &str, wanted: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(name), wanted).unwrap();
        return;
    }
    let differs = present.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| present.lines().count().min(wanted.lines().count())) + 1;
    assert!(
        present == wanted,
        "{name} is out of date from line {line} on; UPDATE=1 cargo test --package tracer --test docs writes it anew"
    );
}

#[test]
fn metrics_md_is_what_the_table_generates() {
    let present = fs::read_to_string(root().join("METRICS.md")).unwrap_or_default();
    check_or_update("METRICS.md", &present, &metrics_markdown());
}

#[test]
fn the_shipped_configuration_is_what_the_command_line_defines() {
    const NAME: &str = "tracer/pkg/pinscope.toml";
    let present = fs::read_to_string(root().join(NAME)).unwrap_or_default();
    check_or_update(NAME, &present, &shipped::default_file());
}

#[test]
fn the_reference_in_the_readme_is_what_the_command_line_defines() {
    let present = read("README.md");
    let (before, rest) = present.split_once(BEGIN).expect("README.md has no begin of a reference");
    let (_, after) = rest.split_once(END).expect("README.md has no end of a reference");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", reference());
    check_or_update("README.md", &present, &wanted);
}

/// Every visible subcommand with every visible option.
fn reference() -> String {
    let mut text = String::new();
    let mut root = Arguments::command();
    root.build();
    let global = root.get_arguments().filter(|argument| argument.is_global_set());
    write!(text, "\nEvery subcommand takes\n\n{}", options(global)).unwrap();
    for command in visible(&root) {
        write!(text, "\n**`{}`** {}\n\n", usage(command), about(command.get_about())).unwrap();
        text.push_str(&options(command.get_arguments().filter(|argument| !argument.is_global_set())));
    }
    text.push('\n');
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// `pinscope man <FOLDER>`.
fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").to_owned()
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = String::new();
    for argument in arguments.filter(|argument| !argument.is_hide_set() && !is_help(argument)) {
        writeln!(text, "- `{}` {}", shown(argument), help(argument)).unwrap();
    }
    text
}

fn is_help(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// `-d, --duration <TIME>`.
fn shown(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default().join(" ");
    let Some(long) = argument.get_long() else { return format!("<{names}>") };
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if argument.get_action().takes_values() { format!(" <{names}>") } else { String::new() };
    format!("{short}--{long}{value}")
}

fn help(argument: &Arg) -> String {
    let mut text = about(argument.get_help());
    let values: Vec<_> = argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if argument.get_action().takes_values() && !values.is_empty() {
        write!(text, ": {}", values.join(", ")).unwrap();
    }
    if let [default] = argument.get_default_values()
        && argument.get_action().takes_values()
    {
        write!(text, " (default `{}`)", default.to_string_lossy()).unwrap();
    }
    text
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().replace('\n', " ")
}

#[test]
fn every_command_in_the_documents_parses() {
    let mut found = 0;
    for name in DOCUMENTS {
        for words in commands(&written(name)) {
            found += 1;
            if let Err(error) = Arguments::command().try_get_matches_from(&words) {
                // Named without its arguments, or asked for help: the names are right.
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
    assert!(found > 10, "only {found} commands found: the documents are not read as they are written");
}

#[test]
fn every_option_in_the_documents_is_one() {
    let known = options_of(&Arguments::command());
    for name in DOCUMENTS {
        for code in inline(&written(name)) {
            let option = code.split([' ', '=', ',']).next().unwrap_or_default();
            // Not an errno, such as `-EFAULT`.
            let is_option = option.starts_with("--") || (option.starts_with('-') && option.len() == 2);
            if !is_option {
                continue;
            }
            assert!(known.iter().any(|known| known == option), "{name}: pinscope has no option `{option}`");
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

/// The command lines that begin with `pinscope`, in fenced blocks and in back-ticks, split into words.
fn commands(document: &str) -> Vec<Vec<String>> {
    let fenced = blocks(document).into_iter().flat_map(str::lines);
    let lines = fenced.map(str::to_owned).chain(inline(document));
    lines
        .filter_map(|line| {
            let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
            let line = line.split([';', '|', '>', '&', '#']).next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            // A line of output begins with the version: `pinscope 0.1.0: ...`.
            let is_output = words.get(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()));
            (words.first().is_some_and(|word| word == "pinscope") && !is_output).then_some(words)
        })
        .collect()
}

/// The texts between fences.
fn blocks(document: &str) -> Vec<&str> {
    document.split("\n```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1)).collect()
}

/// The texts in single back-ticks, outside of fences.
fn inline(document: &str) -> Vec<String> {
    let text: Vec<_> = document.split("\n```").step_by(2).collect();
    text.iter().flat_map(|text| text.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for name in DOCUMENTS {
        let folder = root().join(name).parent().unwrap().to_owned();
        for link in read(name).split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let elsewhere = link.is_empty() || link.contains("://");
            assert!(elsewhere || folder.join(link).exists(), "{name} links to {link}, which is not there");
        }
    }
}
