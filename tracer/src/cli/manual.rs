//! What a manual page says besides the options: examples, exit status, files, and where to read on. The command
//! reference has the examples and the exit status from here, too.

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    file::{DEFAULT_PATH, command},
    shipped,
};

/// A pair of what stands there and what it means.
pub type Explained = (&'static str, &'static str);

/// What a command's page says besides its options.
pub struct Page {
    /// The subcommand; empty for `pinscope` itself.
    pub command: &'static str,
    /// Commands to try, each with what it does.
    pub examples: &'static [Explained],
    /// Exit status.
    pub statuses: &'static [Explained],
    /// Files that it reads, or that belong to it.
    pub files: &'static [Explained],
    /// Other pages.
    pub see_also: &'static str,
}

/// A start that a signal ends dies of it.
const STARTING: Explained = ("130, 143", "Ctrl-C or SIGTERM during the start: nothing was measured, no COMMAND begun.");
const FAILURES: &[Explained] =
    &[("0", "Success."), ("1", "An error; one line says which."), ("2", "A command line that cannot be followed.")];
const AROUND: &[Explained] = &[
    ("0", "Success; around a COMMAND its own status."),
    ("1", "An error; one line says which."),
    ("2", "A command line that cannot be followed."),
    STARTING,
];
const KERNEL: &[Explained] = &[
    ("/sys/kernel/btf/vmlinux", "The kernel's types: offsets and prototypes come from here."),
    ("/proc/kallsyms", "Read where a function cannot be hooked, for the reason."),
];

/// Every page.
pub const PAGES: [Page; 8] = [
    Page {
        command: "",
        examples: &[
            ("pinscope doctor", "What this kernel offers, and what is missing."),
            ("pinscope report -d 60", "The whole machine for a minute."),
            ("pinscope trace --failed", "Registrations that are refused, as they happen."),
        ],
        statuses: FAILURES,
        files: &[],
        see_also: "pinscope-report(1), pinscope-trace(1), pinscope-audit(1), pinscope-daemon(1), pinscope-doctor(1), \
                   pinscope.toml(5), io_uring_register(2)",
    },
    Page {
        command: "report",
        examples: &[
            ("pinscope report -- fio job.fio", "A command and its descendants, from the first instruction on."),
            ("pinscope report --pid 4242 -i 10", "One process, a report every ten seconds, until Ctrl-C."),
            ("pinscope report --explain -d 60", "For each process what to change, where its figures support it."),
            ("pinscope report --format markdown -d 60", "To paste into a mail or an issue."),
        ],
        statuses: AROUND,
        files: KERNEL,
        see_also: "pinscope-trace(1), pinscope-doctor(1)",
    },
    Page {
        command: "trace",
        examples: &[
            ("pinscope trace --failed", "Every refused registration, with its buffers' backings."),
            ("pinscope trace --min-vmas 2 --json", "Registrations over more than one VMA, an object a line."),
            ("pinscope trace --backing file --comm fio", "Registrations of files, by tasks of that name."),
        ],
        statuses: AROUND,
        files: KERNEL,
        see_also: "pinscope-report(1)",
    },
    Page {
        command: "audit",
        examples: &[
            ("pinscope audit -d 60", "The whole machine for a minute."),
            ("pinscope audit -- fio job.fio", "A command and its descendants."),
            ("pinscope audit --json --pid 4242", "One process until Ctrl-C, with the exact figures."),
        ],
        statuses: AROUND,
        files: KERNEL,
        see_also: "pinscope-report(1)",
    },
    Page {
        command: "daemon",
        examples: &[
            ("pinscope daemon", "Serves http://127.0.0.1:9757/metrics until a signal ends it."),
            ("pinscope daemon --rings", "Also says what is registered and pinned now."),
            ("pinscope daemon --listen unix:/run/pinscope/metrics.sock", "On a Unix socket, for a proxy."),
        ],
        statuses: &[
            ("0", "Ended by SIGTERM or SIGINT."),
            ("1", "An error; with --strict also something that cannot be measured."),
            ("2", "A command line or a configuration that cannot be followed; the service is not restarted."),
            ("130, 143", "SIGINT or SIGTERM during the start."),
        ],
        files: &[
            (DEFAULT_PATH, "The configuration; see pinscope.toml(5)."),
            ("/usr/lib/systemd/system/pinscope.service", "The service."),
            ("/usr/lib/systemd/system/pinscope.socket", "A socket for it, not enabled."),
        ],
        see_also: "pinscope.toml(5), systemctl(1), pinscope-doctor(1)",
    },
    Page {
        command: "doctor",
        examples: &[
            ("pinscope doctor", "What this kernel offers, the plan, and what is missing."),
            ("pinscope doctor --json", "The same for a bug report."),
        ],
        statuses: &[
            ("0", "Everything that was asked for can be measured."),
            ("1", "An error; one line says which."),
            ("2", "A command line that cannot be followed."),
            ("3", "Something is degraded."),
            ("4", "Nothing can be measured."),
        ],
        files: KERNEL,
        see_also: "pinscope-report(1)",
    },
    Page {
        command: "man",
        examples: &[("pinscope man /tmp/man", "Then read one with man /tmp/man/pinscope-report.1.")],
        statuses: FAILURES,
        files: &[],
        see_also: "pinscope(1)",
    },
    Page {
        command: "completions",
        examples: &[("pinscope completions bash", "Prints the script for bash.")],
        statuses: FAILURES,
        files: &[],
        see_also: "pinscope(1)",
    },
];

/// Every manual page: the name of its file, and its text.
///
/// # Errors
///
/// Those of the generator, which do not happen in memory.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let visible = root.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages = visible.chain([&root]).map(page).collect::<io::Result<Vec<_>>>()?;
    pages.push(("pinscope.toml.5".to_owned(), shipped::manual_page().into_bytes()));
    Ok(pages)
}

fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    man.render(&mut text)?;
    let name = if command.get_name() == "pinscope" { "" } else { command.get_name() };
    if let Some(page) = PAGES.iter().find(|page| page.command == name) {
        sections(page).to_writer(&mut text)?;
    }
    Ok((man.get_filename(), text))
}

fn sections(page: &Page) -> Roff {
    let mut roff = Roff::new();
    for (title, pairs) in [("EXAMPLES", page.examples), ("EXIT STATUS", page.statuses), ("FILES", page.files)] {
        if pairs.is_empty() {
            continue;
        }
        roff.control("SH", [title]);
        for (head, meaning) in pairs {
            roff.control("TP", []);
            roff.text([bold(*head)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(page.see_also)]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_every_section() {
        let pages = pages().unwrap();
        for (name, text) in &pages {
            let text = String::from_utf8_lossy(text);
            assert!(text.contains("\n.SH \"SEE ALSO\"") || text.contains("\n.SH SEE ALSO"), "{name}: {text}");
            let is_file = name.ends_with(".5");
            assert!(is_file || text.contains(".SH EXAMPLES") && text.contains("EXIT STATUS"), "{name}: {text}");
        }
        let command = command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set()).count();
        assert_eq!(pages.len(), visible + 2);
        assert_eq!(PAGES.len(), visible + 1);
    }

    #[test]
    fn every_example_parses() {
        for (example, _) in PAGES.iter().flat_map(|page| page.examples) {
            let parsed = command().try_get_matches_from(example.split_whitespace());
            assert!(parsed.is_ok(), "{example}: {:?}", parsed.err());
        }
    }
}
