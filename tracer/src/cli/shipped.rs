//! What is shipped with the daemon about its options: the commented configuration file and its manual page, both made
//! from the command line's definition.

use clap::{Arg, ArgAction, Command};
use clap_mangen::roff::{Roff, bold, roman};

use super::file::{DEFAULT_PATH, command, keys};
use crate::human::wrapped;

/// Columns of the file at most.
const WIDTH: usize = 100;

/// Examples for the options without a default.
const EXAMPLES: [(&str, &str); 7] = [
    ("allow-host", r#"["metrics.example.com"]"#),
    ("listen", r#"["127.0.0.1:9757"]"#),
    ("avoid", r#"["gup_vma_lookup"]"#),
    ("workloads", "200"),
    ("otlp-endpoint", r#""http://127.0.0.1:4318""#),
    ("otlp-header", r#"["Authorization=Bearer TOKEN"]"#),
    ("otlp-attribute", r#"["service.instance.id=rack-7"]"#),
];

/// Of the manual page: also on a Unix socket for a proxy, with the history of rings.
const EXAMPLE: &str = "\
listen = [\"127.0.0.1:9757\", \"unix:/run/pinscope/metrics.sock\"]
rings = true
workloads = 50";

const HEAD: &str = "\
# The configuration of pinscope's service; see pinscope.toml(5).
#
# Each key is an option of `pinscope daemon`; an option on the command line wins over its key. A line `#key = value`
# shows the default, or an example if there is none: remove the # to change it. `systemctl reload pinscope` reads this
# file again. verbose and listen then take effect at once (listen not with pinscope.socket), all others at the next
# restart; `systemctl status pinscope` names those. A file with a mistake changes nothing.
";

/// One key.
struct Key {
    name: String,
    help: String,
    /// In TOML.
    value: String,
    has_default: bool,
}

impl Key {
    fn new(argument: &Arg) -> Option<Self> {
        let name = argument.get_long()?.to_owned();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let known = match (argument.get_action(), defaults.as_slice()) {
            (ArgAction::Count, _) => Some("0".to_owned()),
            (_, [default]) => Some(toml_value(default)),
            _ => None,
        };
        let example = || EXAMPLES.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let has_default = known.is_some();
        Some(Self { value: known.or_else(example)?, name, help, has_default })
    }

    /// What it takes, besides the help: the values to choose from.
    fn choices(argument: &Arg) -> String {
        let values = argument.get_possible_values();
        let names: Vec<_> = values.iter().map(|value| format!("\"{}\"", value.get_name())).collect();
        if names.is_empty() || argument.is_hide_possible_values_set() { String::new() } else { names.join(", ") }
    }
}

/// Numbers and switches stand bare, all else in quotation marks.
fn toml_value(text: &str) -> String {
    let bare = text == "true" || text == "false" || text.parse::<u64>().is_ok();
    if bare { text.to_owned() } else { format!("\"{text}\"") }
}

fn described(command: &Command) -> impl Iterator<Item = (Key, String)> {
    keys(command).filter_map(|argument| Some((Key::new(argument)?, Key::choices(argument))))
}

/// `/etc/pinscope/pinscope.toml` as it is shipped: all commented out, so that as it is it changes nothing.
pub fn default_file() -> String {
    let command = command();
    let mut text = HEAD.to_owned();
    for (key, choices) in described(&command) {
        let choices = if choices.is_empty() { choices } else { format!(": {choices}") };
        text.push('\n');
        for line in wrapped(&format!("{}{choices}.", key.help), WIDTH - 2) {
            text.extend(["# ", &line, "\n"]);
        }
        text.extend(["#", &key.name, " = ", &key.value, "\n"]);
    }
    text
}

/// The manual page pinscope.toml(5).
pub fn manual_page() -> String {
    let command = command();
    let mut page = Roff::new();
    page.control("TH", ["pinscope.toml", "5", "", concat!("pinscope ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]);
    page.text([roman("pinscope.toml - configuration of pinscope's service")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([roman(DEFAULT_PATH)]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "Read by `pinscope daemon` unless --config names another file. The format is TOML. Each key is an option of the \
         daemon without its dashes; an option on the command line wins over its key. An option that may be given several \
         times is a list. An unknown key, or a value that the option does not accept, is an error that names the line.",
    )]);
    page.control("PP", []);
    page.text([roman(
        "SIGHUP (systemctl reload pinscope) makes the daemon read the file again. A file with a mistake changes nothing. \
         Only verbose and listen take effect at once. All others need a restart, and the service's status and log name \
         them. Counts never go back over a reload.",
    )]);
    page.control("SH", ["KEYS"]);
    for (key, choices) in described(&command) {
        page.control("TP", []);
        page.text([bold(key.name)]);
        let choices = if choices.is_empty() { choices } else { format!(" One of {choices}.") };
        let value = format!("{}: {}.", if key.has_default { "Default" } else { "Example" }, key.value);
        page.text([roman(format!("{}.{choices} {value}", key.help.replace('\n', " ")))]);
    }
    page.control("SH", ["EXAMPLES"]);
    page.control("EX", []);
    page.text([roman(EXAMPLE)]);
    page.control("EE", []);
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([bold(DEFAULT_PATH)]);
    page.text([roman(
        "For root and the group pinscope only (mode 0640), because a collector's token may stand in it.",
    )]);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("pinscope-daemon(1), systemd.service(5)")]);
    page.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::file::{Setting, parse};

    #[test]
    fn every_key_is_in_the_file_and_in_the_manual() {
        let command = command();
        let (file, page) = (default_file(), manual_page());
        for argument in keys(&command) {
            let name = argument.get_long().unwrap();
            assert_eq!(file.matches(&format!("\n#{name} = ")).count(), 1, "{name}: without a default, and no example");
            let escaped = name.replace('-', "\\-");
            assert_eq!(page.matches(&format!("\n\\fB{escaped}\\fR\n")).count(), 1, "{name}: {page}");
        }
    }

    #[test]
    fn as_shipped_it_changes_nothing() {
        assert_eq!(parse(&default_file()), Ok(Vec::new()));
    }

    #[test]
    fn every_line_that_is_uncommented_parses() {
        let file = default_file();
        let mut count = 0;
        for line in file.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ") && *line != "#") {
            let Setting { key, .. } = parse(&line[1..]).unwrap_or_else(|error| panic!("{line}: {error:?}")).remove(0);
            assert!(line.starts_with(&format!("#{key} = ")));
            count += 1;
        }
        assert_eq!(count, keys(&command()).count());
        let all: String = file
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .fold(String::new(), |text, line| format!("{text}{}\n", line.unwrap_or_default()));
        assert_eq!(parse(&all).unwrap().len(), count);
    }

    #[test]
    fn the_defaults_in_the_file_are_those_of_the_command_line() {
        for (key, _) in described(&command()).filter(|(key, _)| key.has_default && key.name != "verbose") {
            let settings = parse(&format!("{} = {}", key.name, key.value)).unwrap();
            let typed = command().try_get_matches_from(["pinscope", "daemon"]).unwrap();
            let set = ["pinscope", "daemon"].into_iter().map(str::to_owned).chain(settings[0].words.clone());
            let set = command().try_get_matches_from(set).unwrap();
            let raw = |matches: &clap::ArgMatches| -> Vec<_> {
                let daemon = matches.subcommand_matches("daemon").unwrap();
                daemon.get_raw(&key.name.replace('-', "_")).unwrap().map(ToOwned::to_owned).collect()
            };
            assert_eq!(raw(&typed), raw(&set), "{}", key.name);
        }
    }

    #[test]
    fn the_example_of_the_manual_parses() {
        assert_eq!(parse(EXAMPLE).unwrap().len(), 3);
    }

    #[test]
    fn the_file_has_short_lines() {
        assert!(default_file().lines().all(|line| line.chars().count() <= 120));
    }
}
