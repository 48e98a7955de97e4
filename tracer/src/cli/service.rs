//! The service's configuration: the command line over the file, checked, and what a reload changes of it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, FromArgMatches as _, parser::ValueSource};

use super::{
    args::{self, Arguments, Command},
    config,
    file::{self, FileError, one_line},
};
use crate::probe::plan::Wish;

/// Why there is no configuration, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The file cannot be followed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line, or the two together.
    #[error("{0}; see pinscope daemon --help")]
    Arguments(String),
}

/// The command line as it was typed. The file that it leads to is read as often as the service is told to.
#[derive(Clone, Debug)]
pub struct Typed(Vec<OsString>);

/// What the service is to do.
#[derive(Debug)]
pub struct Config {
    /// Every option, from the command line or else from the file.
    pub daemon: args::Daemon,
    /// How much to log; see [`Arguments::verbose`].
    pub verbose: u8,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// Every option's values as they would be typed, by name: what a reload compares.
    values: BTreeMap<String, Vec<OsString>>,
}

/// Options that a running service follows. All others count when programs and maps are loaded, or when the exporter starts.
const LIVE: [&str; 2] = ["verbose", "listen"];

impl Typed {
    /// What the process was started with, its own name in front.
    pub fn new(words: impl IntoIterator<Item = OsString>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Reads the file that the command line names, or the usual one, and puts the command line over it.
    pub fn load(&self) -> Result<Config, ServiceError> {
        self.load_or(Path::new(file::DEFAULT_PATH))
    }

    fn load_or(&self, usual: &Path) -> Result<Config, ServiceError> {
        let typed = matches(&self.0)?;
        let named = daemon(&typed).and_then(|typed| typed.get_one::<PathBuf>("config")).cloned();
        // One that is there and cannot be read is an error, not a file that there is not.
        let is_absent = fs::metadata(usual).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let path = named.or_else(|| (!is_absent).then(|| usual.to_owned()));
        let settings = path.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let given = |key: &str| {
            let id = key.replace('-', "_");
            daemon(&typed).is_some_and(|typed| typed.value_source(&id) == Some(ValueSource::CommandLine))
        };
        let from_file = settings.into_iter().filter(|setting| !given(&setting.key)).flat_map(|setting| setting.words);
        // Behind the subcommand's name, before which only switches can stand.
        let place = self.0.iter().position(|word| word == "daemon").map_or(self.0.len(), |place| place + 1);
        let (before, behind) = self.0.split_at(place);
        let words: Vec<_> =
            before.iter().cloned().chain(from_file.map(OsString::from)).chain(behind.iter().cloned()).collect();
        Config::new(&words, path)
    }
}

impl Config {
    fn new(words: &[OsString], file: Option<PathBuf>) -> Result<Self, ServiceError> {
        let matches = matches(words)?;
        let values = daemon(&matches).map(values).unwrap_or_default();
        let arguments =
            Arguments::from_arg_matches(&matches).map_err(|error| ServiceError::Arguments(one_line(&error)))?;
        match arguments.command {
            Command::Daemon(daemon) => Ok(Self { daemon, verbose: arguments.verbose, file, values }),
            _ => Err(ServiceError::Arguments("only the daemon has a configuration".to_owned())),
        }
    }

    /// What is to be hooked, and what the eBPF side is to do.
    pub fn wish(&self) -> Wish {
        let daemon = &self.daemon;
        let wish = config::service_wish(&daemon.probes, daemon.lookups, daemon.rings, daemon.calls);
        config::with_details(config::workloads(daemon.workloads, wish), daemon.details)
    }

    /// The options that `newer` has otherwise and that take a restart, by name.
    pub fn needs_restart<'a>(&'a self, newer: &'a Self) -> Vec<&'a str> {
        let names = self.values.keys().chain(newer.values.keys().filter(|name| !self.values.contains_key(*name)));
        names
            .filter(|name| self.values.get(*name) != newer.values.get(*name))
            .map(String::as_str)
            .filter(|name| !LIVE.contains(name))
            .collect()
    }
}

fn matches(words: &[OsString]) -> Result<ArgMatches, ServiceError> {
    file::command().try_get_matches_from(words).map_err(|error| ServiceError::Arguments(one_line(&error)))
}

fn daemon(matches: &ArgMatches) -> Option<&ArgMatches> {
    matches.subcommand_matches("daemon")
}

/// Every option's values, by name.
fn values(matches: &ArgMatches) -> BTreeMap<String, Vec<OsString>> {
    let command = file::command();
    file::keys(&command)
        .filter_map(|argument| {
            let raw = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
            Some((argument.get_long()?.to_owned(), raw.map(ToOwned::to_owned).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Attach;

    /// The configuration that a command line makes of a file's text.
    fn load(typed: &[&str], text: &str) -> Result<Config, ServiceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pinscope.toml");
        fs::write(&path, text).unwrap();
        Typed::new(typed.iter().map(OsString::from)).load_or(&path)
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let text = "rings = true\nlocks = true\nattach = 'kprobe'\nverbose = 2\navoid = ['vma_lookup']\n";
        let config = load(&["pinscope", "daemon"], text).unwrap();
        assert!(config.daemon.rings && config.daemon.details.locks && !config.daemon.lookups);
        assert!(matches!(config.daemon.probes.attach, Attach::Kprobe));
        assert_eq!(config.verbose, 2);

        let typed = [
            "pinscope",
            "-v",
            "daemon",
            "--rings=false",
            "--attach",
            "fentry",
            "--avoid",
            "gup_vma_lookup",
            "--lookups",
        ];
        let config = load(&typed, text).unwrap();
        assert!(!config.daemon.rings && config.daemon.details.locks && config.daemon.lookups);
        assert!(matches!(config.daemon.probes.attach, Attach::Fentry));
        assert_eq!(config.daemon.probes.avoid, ["gup_vma_lookup"]);
        assert_eq!(config.verbose, 1);
    }

    #[test]
    fn a_named_file_has_to_be_there_and_the_usual_one_need_not() {
        let typed = Typed::new(["pinscope", "daemon"].map(OsString::from));
        assert!(typed.load_or(Path::new("/nonexistent/pinscope.toml")).unwrap().file.is_none());
        let error = load(&["pinscope", "daemon", "--config", "/nonexistent/x.toml"], "").unwrap_err();
        let said = "cannot read the configuration /nonexistent/x.toml: No such file or directory (os error 2); name another with --config";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn what_may_never_end_is_no_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        // Without a writer, and with one that writes nothing.
        for writer in [None, Some(fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap())] {
            let error = Typed::new(["pinscope", "daemon"].map(OsString::from)).load_or(&fifo).unwrap_err().to_string();
            assert!(error.contains("it is no regular file"), "{error}");
            drop(writer);
        }
        let error = Typed::new(["pinscope", "daemon", "--config", "/dev/zero"].map(OsString::from)).load().unwrap_err();
        assert!(error.to_string().contains("it is no regular file"), "{error}");
    }

    #[test]
    fn a_mistake_names_file_line_and_key() {
        let error = load(&["pinscope", "daemon"], "\nringz = true\n").unwrap_err().to_string();
        assert!(error.ends_with("/pinscope.toml:2: there is no key ringz; did you mean rings?"), "{error}");
    }

    #[test]
    fn an_option_that_needs_another_finds_it_in_either() {
        let header = "otlp-header = ['a=b']\n";
        assert!(load(&["pinscope", "daemon", "--otlp-endpoint", "http://a:1"], header).is_ok());
        let error = load(&["pinscope", "daemon"], header).unwrap_err().to_string();
        assert!(error.contains("--otlp-endpoint"), "{error}");
    }

    #[test]
    fn a_reload_tells_what_takes_a_restart() {
        let old = load(&["pinscope", "daemon", "--locks"], "rings = true\nverbose = 1\n").unwrap();
        let same = load(&["pinscope", "daemon", "--locks"], "verbose = 1\nrings = true\n").unwrap();
        assert!(old.needs_restart(&same).is_empty());
        let new =
            load(&["pinscope", "daemon", "--locks"], "strict = true\nlocks = false\navoid = ['vma_lookup']\n").unwrap();
        assert_eq!(old.needs_restart(&new), ["avoid", "rings", "strict"]);
    }
}
