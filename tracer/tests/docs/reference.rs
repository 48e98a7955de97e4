//! Generates the command reference from the command line's definition.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};
use pinscope::cli::{
    args::Arguments,
    manual::{Explained, PAGES},
};

use super::wrapped;

const HEAD: &str = "\
# Command reference

<!-- Generated from the command line's definition; do not edit. -->

";

/// The reference: every visible subcommand with every visible option.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    let mut root = Arguments::command();
    root.build();
    let global = root.get_arguments().filter(|argument| argument.is_global_set());
    write!(text, "Every subcommand takes\n\n{}", options(global)).unwrap();
    for command in visible(&root) {
        write!(text, "\n## pinscope {}\n\n", command.get_name()).unwrap();
        write!(text, "`{}`\n\n", usage(command)).unwrap();
        text.push_str(&wrapped(&format!("{}.", about(command.get_about())), ""));
        let own = options(command.get_arguments().filter(|argument| !argument.is_global_set()));
        if !own.is_empty() {
            write!(text, "\n{own}").unwrap();
        }
        if let Some(page) = PAGES.iter().find(|page| page.command == command.get_name()) {
            write!(text, "\nExamples:\n\n{}", pairs(page.examples)).unwrap();
            write!(text, "\nExit status:\n\n{}", pairs(page.statuses)).unwrap();
        }
    }
    text
}

fn pairs(pairs: &[Explained]) -> String {
    pairs.iter().map(|(head, meaning)| wrapped(&format!("- `{head}`: {meaning}"), "  ")).collect()
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// For example `pinscope man <FOLDER>`.
fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").to_owned()
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let shown = arguments.filter(|argument| !argument.is_hide_set() && !is_help(argument));
    shown.map(|argument| wrapped(&format!("- `{}`: {}", form(argument), help(argument)), "  ")).collect()
}

fn is_help(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// For example `-d, --duration <TIME>`.
fn form(argument: &Arg) -> String {
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
