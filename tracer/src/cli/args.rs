//! The command line as it is typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    probe::{audit, mode::AttachMode, table},
    sink::http::Listen,
};

/// What io_uring buffer registration costs, and what it pins.
///
/// pinscope attaches to the kernel's buffer registration path. It measures how many VMAs each registration touches, how
/// long it takes and where that time goes, and which kinds of memory and files back the buffers.
#[derive(Debug, Parser)]
#[command(name = "pinscope", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    /// More detail on standard error, with the probes' own log; twice adds the verifier's log
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Summarise registrations: for a while, until Ctrl-C, or around a command
    Report(Report),
    /// Print a line for each registration as it happens
    Trace(Trace),
    /// List who pins or holds user pages: every caller of pin_user_pages, get_user_pages and their relatives
    ///
    /// Its probes are on the path of O_DIRECT, futexes and ptrace, so every such call on the machine pays for them while it
    /// runs. The result ends with what they cost.
    Audit(Audit),
    /// Serve metrics to Prometheus
    Daemon(Daemon),
    /// Show what this kernel offers, which hooks would be used and why, and what is missing
    Doctor(Doctor),
    /// Write the manual pages into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the commented configuration file as it is shipped
    #[command(hide = true)]
    DefaultConfig,
    /// Print the list of metrics (tracer/doc/metrics.md), generated from their table
    #[command(hide = true)]
    Metrics,
    /// Waits to be let go, then runs the command: how `-- COMMAND` is traced from its start
    #[command(hide = true, name = "__exec")]
    Exec {
        /// The descriptor by which it is let go
        #[arg(long)]
        control: i32,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// How to attach.
#[derive(Debug, Args)]
pub struct Probes {
    /// How to hook functions
    #[arg(long, value_enum, default_value = "auto")]
    pub attach: Attach,

    /// Do not hook this kernel function, but the next candidate; may be given several times
    #[arg(long, value_name = "FUNCTION", value_parser = hooked_function)]
    pub avoid: Vec<String>,
}

/// How functions are hooked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Attach {
    /// fentry and fexit, else kprobes; if the kernel preempts itself, kprobe.multi, else kprobes, else fentry and fexit
    Auto,
    /// kprobe.multi (5.18 and later)
    #[value(name = "kprobe.multi")]
    Multi,
    /// kprobes and kretprobes
    Kprobe,
    /// fentry and fexit
    Fentry,
}

impl From<Attach> for AttachMode {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Multi => Self::Multi,
            Attach::Kprobe => Self::Kprobe,
            Attach::Fentry => Self::Fentry,
        }
    }
}

/// Which registrations a session looks at, and for how long.
#[derive(Debug, Args)]
pub struct Scope {
    /// Only this process, with all its threads
    #[arg(short, long, value_name = "PID", conflicts_with = "argv")]
    pub pid: Option<u32>,

    /// Only tasks with this name (the kernel's comm, up to 15 bytes; the kernel may cut it inside a character)
    #[arg(long, value_name = "NAME")]
    pub comm: Option<OsString>,

    /// Only tasks of this user id
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,

    /// Stop after this time: seconds, or 500ms, 2m, 1h30m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Trace this command and all its descendants from the first instruction on, and exit with its status
    #[arg(last = true, value_name = "COMMAND")]
    pub argv: Vec<OsString>,
}

/// What is measured only on request, since its hooks lie on everyone's path.
#[derive(Clone, Copy, Debug, Args)]
pub struct Details {
    /// Also time waits for mmap_lock; the hooks are on every acquisition of it on the machine
    #[arg(long)]
    pub locks: bool,

    /// Also time page faults, look-ups and accounting; the hooks are on every page fault of the machine
    #[arg(long)]
    pub phases: bool,
}

/// `pinscope report`.
#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    pub scope: Scope,

    /// Print a report at this interval, each for the time since the one before
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,

    /// Output format: text for a terminal, JSON with exact figures and a schema version, or markdown to paste into a
    /// mail or an issue
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,

    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// For each process, what its registrations cost and what to change, where its figures support it
    #[arg(long)]
    pub explain: bool,

    /// Do not hook the kernel's VMA look-ups, which are on every slow GUP (KVM, ptrace)
    #[arg(long)]
    pub no_lookups: bool,

    #[command(flatten)]
    pub details: Details,

    #[command(flatten)]
    pub probes: Probes,
}

impl Report {
    /// The format that was asked for.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// One object a report
    Json,
    /// For a mail or an issue
    Markdown,
}

/// `pinscope trace`.
#[derive(Debug, Args)]
pub struct Trace {
    #[command(flatten)]
    pub scope: Scope,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Only registrations that failed, or installed only some of their buffers
    #[arg(long)]
    pub failed: bool,

    /// Only registrations that touch at least this many VMAs
    #[arg(long, value_name = "N")]
    pub min_vmas: Option<u64>,

    /// Only registrations whose call takes at least this long: seconds, or 100us, 5ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub min_duration: Option<Duration>,

    /// Only registrations with a buffer in this kind of memory; may be given several times
    #[arg(long, value_name = "CLASS", value_parser = ["anon", "shmem", "hugetlb", "file", "device", "special"])]
    pub backing: Vec<String>,

    /// Size of the ring buffer for records, in MiB, a power of two
    #[arg(long, value_name = "MIB", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub buffer: u32,

    /// Do not hook the kernel's VMA look-ups, which are on every slow GUP (KVM, ptrace)
    #[arg(long)]
    pub no_lookups: bool,

    #[command(flatten)]
    pub details: Details,

    #[command(flatten)]
    pub probes: Probes,
}

/// `pinscope audit`.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    pub scope: Scope,

    /// Print one JSON object with exact figures
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub probes: Probes,
}

/// `pinscope daemon`. Each option is a key of the configuration file as well; see [`super::file`].
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, set by name")]
pub struct Daemon {
    /// Read options from this file; the command line wins. Without it /etc/pinscope/pinscope.toml, if it exists
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Fail if anything that was asked for cannot be measured, instead of serving the rest
    #[arg(long)]
    pub strict: bool,

    /// Where to serve /metrics: ADDRESS:PORT or unix:/PATH; may be given several times (default: 127.0.0.1:9757)
    #[arg(long, value_name = "PLACE")]
    pub listen: Vec<Listen>,

    /// Another name under which clients may ask, such as a proxy's or an alias in DNS; * for any. This machine's own names
    /// always work (its host name, alone and in its search domains, and those in /etc/hosts). May be given several times
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,

    /// Also count the kernel's VMA look-ups; the hook is on every slow GUP (KVM, ptrace)
    #[arg(long)]
    pub lookups: bool,

    /// Also follow rings: their age at each registration, the gaps between registrations, how many each ring has, and what
    /// is registered now
    #[arg(long)]
    pub rings: bool,

    /// Also time the system calls themselves, with the wait for the ring's lock, and detect calls that hang in that wait
    #[arg(long)]
    pub calls: bool,

    /// Make the kernel keep statistics of all BPF programs on the machine, for the runs and run time of pinscope's own;
    /// needs CAP_SYS_ADMIN
    #[arg(long)]
    pub stats: bool,
    /// How many workloads (systemd units, slices, containers) have series of their own; all others share one named other.
    /// 0 gives none its own (default: 200)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=MOST_WORKLOADS))]
    pub workloads: Option<u32>,

    #[command(flatten)]
    pub otlp: super::otlp::Otlp,

    #[command(flatten)]
    pub details: Details,

    #[command(flatten)]
    pub probes: Probes,
}

/// Some 35 series each, and 5 KiB of the kernel's memory.
const MOST_WORKLOADS: i64 = 10_000;

/// `pinscope doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub probes: Probes,
}

/// A function or tracepoint that pinscope could hook.
fn hooked_function(text: &str) -> Result<String, String> {
    let wanted = table::wanted();
    let audited = audit::FUNCTIONS.iter().filter(|name| !wanted.functions.contains(name));
    let known: Vec<_> = wanted.functions.iter().chain(wanted.tracepoints).chain(audited).copied().collect();
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("pinscope never hooks it; it hooks {}", known.join(", ")))
}

/// Seconds as a plain number, or a number with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "a time such as 10, 500ms, 2m or 1h30m, above zero";
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| format!("not {wanted}"))?,
        Err(_) => humantime::parse_duration(text).map_err(|_| format!("not {wanted}"))?,
    };
    if duration.is_zero() { Err(format!("not {wanted}")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        for bad in ["", "-1", "0", "0s", "NaN", "inf", "1e300", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
