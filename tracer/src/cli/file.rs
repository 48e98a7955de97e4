//! The daemon's configuration file: its options under the same names, in TOML.
//!
//! A key is an option of `pinscope daemon` without its dashes. The file becomes arguments, which go through the command
//! line's own definition ([`args::Daemon`]): an option that is added there is a key, is checked, and stands in the
//! shipped file and in the manual, without a second table. What is typed wins.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, Command, CommandFactory as _,
    error::{ContextKind, ErrorKind},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::args::Arguments;

/// No configuration is larger.
const LARGEST: u64 = 1 << 20;

/// Read where the command line names no other file, if it is there.
pub const DEFAULT_PATH: &str = "/etc/pinscope/pinscope.toml";

/// How alike a key and what was meant are, from 0 to 1; clap suggests an option above the same.
const ALIKE: f64 = 0.7;

/// The subcommand that has a file.
const DAEMON: &str = "daemon";
/// The option that names the file cannot stand in it.
const CONFIG: &str = "config";
/// Its values are secrets, and are in no message.
const SECRET: &str = "--otlp-header";

/// A file that cannot be followed: one line, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not for us to read.
    #[error("cannot read the configuration {}: {error}; name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something in it.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What and where.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML.
    Syntax(String),
    /// No option has this name; the nearest that has, or all.
    NoKey(String, Option<String>),
    /// A value that the option does not take.
    Value(String, String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => write!(f, "{message}; write key = value, text in quotation marks"),
            Self::NoKey(key, Some(near)) => write!(f, "there is no key {key}; did you mean {near}?"),
            Self::NoKey(key, None) => write!(f, "there is no key {key}; there are {}", names().join(", ")),
            Self::Value(key, problem) => write!(f, "{key}: {problem}"),
        }
    }
}

/// One key of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's name.
    pub key: String,
    /// As it would be typed.
    pub words: Vec<String>,
}

/// The command line's definition, in which the daemon's switches take a value if one stands there: `--rings=false`
/// undoes what a file says.
pub fn command() -> Command {
    Arguments::command().mut_subcommand(DAEMON, |daemon| daemon.mut_args(switch_with_value))
}

fn switch_with_value(argument: Arg) -> Arg {
    if !matches!(argument.get_action(), ArgAction::SetTrue) {
        return argument;
    }
    argument
        .action(ArgAction::Set)
        .value_parser(clap::value_parser!(bool))
        .value_name("true|false")
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .hide_possible_values(true)
}

/// The options that are keys, in the order of the help.
pub fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    let daemon = command.find_subcommand(DAEMON).into_iter().flat_map(Command::get_arguments);
    let global = command.get_arguments().filter(|argument| argument.is_global_set());
    let is_key = |argument: &&Arg| {
        let asks = matches!(
            argument.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        argument.get_long().is_some_and(|name| name != CONFIG) && !argument.is_hide_set() && !asks
    };
    daemon.chain(global).filter(is_key)
}

fn names() -> Vec<String> {
    let command = command();
    keys(&command).filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// Reads a file and checks every key of it.
pub fn read(path: &Path) -> Result<Vec<Setting>, FileError> {
    let text = text(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
    parse(&text).map_err(|(line, problem)| FileError::Content { path: path.to_owned(), line, problem })
}

/// A file's text. Of a FIFO or a device nobody knows when it ends, or whether it begins: a reload would wait for it.
fn text(path: &Path) -> io::Result<String> {
    // Without waiting: to open a FIFO waits for its writer.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// The settings of a text; on failure the line and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Setting>, (usize, Problem)> {
    parse_with(&command(), text)
}

/// The same by a definition that is there already.
pub(crate) fn parse_with(command: &Command, text: &str) -> Result<Vec<Setting>, (usize, Problem)> {
    let line = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line(at), Problem::Syntax(error.message().replace('\n', " ")))
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let setting = setting(command, key.get_ref(), value).and_then(|setting| check(command, setting));
        settings.push((key.span().start, setting.map_err(|problem| (line(key.span().start), problem))));
    }
    // The first mistake in the file's own order.
    settings.sort_by_key(|(at, _)| *at);
    settings.into_iter().map(|(_, setting)| setting).collect()
}

fn setting(command: &Command, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Setting, Problem> {
    let argument = keys(command)
        .find(|argument| argument.get_long() == Some(key))
        .ok_or_else(|| Problem::NoKey(key.to_owned(), nearest(key)))?;
    let wrong = |wanted: &str| {
        Err(Problem::Value(key.to_owned(), format!("{wanted} is wanted, not {}", value.get_ref().type_str())))
    };
    let is_switch = argument.get_value_parser().type_id() == std::any::TypeId::of::<bool>();
    let words = match (argument.get_action(), value.get_ref()) {
        (ArgAction::Count, DeValue::Integer(count)) => match count.to_string().parse::<u8>() {
            Ok(count @ 0..=9) => vec![format!("--{key}"); count.into()],
            _ => return Err(Problem::Value(key.to_owned(), format!("{count} is not a number from 0 to 9"))),
        },
        (ArgAction::Count, _) => return wrong("a number"),
        (_, DeValue::Boolean(on)) if is_switch => vec![format!("--{key}={on}")],
        _ if is_switch => return wrong("true or false, without quotation marks,"),
        (ArgAction::Append, DeValue::Array(values)) => {
            let words = values.iter().map(|value| plain(value.get_ref()).map(|value| format!("--{key}={value}")));
            match words.collect::<Option<Vec<_>>>() {
                Some(words) => words,
                None => return wrong("a list of plain values"),
            }
        }
        (_, value) => match plain(value) {
            Some(value) => vec![format!("--{key}={value}")],
            None => return wrong("one value"),
        },
    };
    Ok(Setting { key: key.to_owned(), words })
}

/// A value as it would be typed.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// Holds one setting against the command line's definition.
fn check(command: &Command, setting: Setting) -> Result<Setting, Problem> {
    let words = ["pinscope", DAEMON].into_iter().chain(setting.words.iter().map(String::as_str));
    match command.clone().try_get_matches_from(words) {
        Ok(_) => Ok(setting),
        // It needs another option, which may stand elsewhere; the whole is checked after.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(setting),
        Err(error) => Err(Problem::Value(setting.key, why(&error))),
    }
}

/// Why a value is refused, in one line and without the command line's own words.
fn why(error: &clap::Error) -> String {
    let value =
        value_of(error).map_or_else(String::new, |value| if is_secret(error) { "its value".to_owned() } else { value });
    if let Some(cause) = std::error::Error::source(error) {
        return format!("{value}: {cause}").replace('\n', " ");
    }
    match error.get(ContextKind::ValidValue) {
        Some(valid) => format!("{value} is none of {valid}"),
        None => one_line(error),
    }
}

/// The value that was refused.
fn value_of(error: &clap::Error) -> Option<String> {
    error.get(ContextKind::InvalidValue).map(ToString::to_string)
}

fn is_secret(error: &clap::Error) -> bool {
    error.get(ContextKind::InvalidArg).is_some_and(|argument| argument.to_string().starts_with(SECRET))
}

/// What clap says, without its usage and in one line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said: Vec<_> = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let said = said.join(" ").trim().trim_start_matches("error: ").to_owned();
    match value_of(error).filter(|value| is_secret(error) && !value.is_empty()) {
        Some(value) => said.replace(&format!("'{value}'"), "(not shown)"),
        None => said,
    }
}

/// The key that was meant, as clap tells which option was: alike enough, `_` and case aside.
fn nearest(key: &str) -> Option<String> {
    let wanted = key.replace('_', "-").to_lowercase();
    let alike = |name: &String| strsim::jaro(&wanted, name);
    let near = names().into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    near.filter(|name| alike(name) > ALIKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().flat_map(|setting| setting.words).collect()
    }

    fn refused(text: &str) -> String {
        let (line, problem) = parse(text).unwrap_err();
        format!("{line}: {problem}")
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_file_becomes_what_one_would_type() {
        let text =
            "# none\nrings = true\n\nattach = 'kprobe'\navoid = [\"vma_lookup\", \"gup_vma_lookup\"]\nverbose = 2\n";
        assert_eq!(
            words(text),
            [
                "--rings=true",
                "--attach=kprobe",
                "--avoid=vma_lookup",
                "--avoid=gup_vma_lookup",
                "--verbose",
                "--verbose"
            ]
        );
        assert!(words("").is_empty());
        assert_eq!(words("otlp-header = ['a=b']\n"), ["--otlp-header=a=b"]);
    }

    #[test]
    fn mistakes_are_one_line_with_line_and_key() {
        assert_eq!(refused("\n\nring = true\n"), "3: there is no key ring; did you mean rings?");
        assert!(refused("zzz = 1").starts_with("1: there is no key zzz; there are strict, listen"));
        assert_eq!(refused("config = 'x'"), format!("1: there is no key config; there are {}", names().join(", ")));
        assert_eq!(refused("rings = 'yes'"), "1: rings: true or false, without quotation marks, is wanted, not string");
        assert_eq!(refused("attach = 'magic'"), "1: attach: magic is none of auto, kprobe.multi, kprobe, fentry");
        assert!(refused("avoid = ['vfs_read']").starts_with("1: avoid: vfs_read: pinscope never hooks it; it hooks "));
        assert_eq!(refused("attach = ['auto']"), "1: attach: one value is wanted, not array");
        assert_eq!(refused("verbose = -1"), "1: verbose: -1 is not a number from 0 to 9");
        assert_eq!(
            refused("[daemon]\nrings = true\n"),
            format!("1: there is no key daemon; there are {}", names().join(", "))
        );
        assert!(refused("rings = true\nrings = false\n").starts_with("2: "));
        assert!(refused("x = 1\nrings true\n").starts_with("2: "));
    }

    #[test]
    fn a_secret_is_in_no_message() {
        let said = refused("otlp-header = ['Authorization Bearer hunter2']");
        assert!(said.starts_with("1: otlp-header: its value: ") && !said.contains("hunter2"), "{said}");
        let typed = ["pinscope", "daemon", "--otlp-endpoint=http://a:1", "--otlp-header=hunter2"];
        let said = one_line(&command().try_get_matches_from(typed).unwrap_err());
        assert!(said.contains("(not shown) for '--otlp-header") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn the_first_mistake_of_the_file_is_named() {
        assert!(refused("rings = 1\nattach = 'magic'\n").starts_with("1: rings"));
        assert!(refused("zebra = 1\nattach = 'magic'\n").starts_with("1: there is no key zebra"));
    }
}
