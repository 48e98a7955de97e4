//! Parse, build, run.
#![deny(clippy::print_stderr, clippy::print_stdout, reason = "both panic where nobody can read; see `say`")]

use std::{io::Write, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::{FromArgMatches, error::ErrorKind};
use pinscope::{
    cli::{
        args::{Arguments, Command, Doctor},
        file,
        file::one_line,
        manual,
        service::{ServiceError, Typed},
        shipped,
    },
    limits,
    logging::{self, Logging},
    say, session, sink,
};

/// Exit code of a command line that cannot be followed.
const USAGE: u8 = 2;

/// Threads for what may block, reading maps above all: each takes its stack, and a scrape takes milliseconds.
const BLOCKING: usize = 4;

fn main() -> ExitCode {
    let parsed = file::command().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let logging = Arc::new(logging::start(arguments.verbose));
    match run(arguments, &logging) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, its causes behind it.
            logging.fatal(&format!("{error:#}").replace('\n', " "));
            // A supervisor need not try again what was written wrongly.
            if error.is::<ServiceError>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Help and version as they are; a mistake in one line, with where to read on.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nothing can be said where standard output and error are closed.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    say::line(format_args!("pinscope: {}; see pinscope --help", one_line(error)));
    ExitCode::from(USAGE)
}

fn run(arguments: Arguments, logging: &Arc<Logging>) -> Result<ExitCode> {
    let verbose = arguments.verbose > 0;
    match arguments.command {
        Command::Report(report) => runtime()?.block_on(session::report(&report, verbose)),
        Command::Audit(audit) => runtime()?.block_on(session::audit(&audit)),
        Command::Trace(trace) => runtime()?.block_on(session::trace(&trace, verbose)),
        Command::Daemon(_) => {
            let typed = Typed::new(std::env::args_os());
            runtime()?.block_on(session::daemon(&typed, Arc::clone(logging)))
        }
        Command::Doctor(wanted) => doctor(&wanted),
        Command::Man { folder } => write_manual(&folder),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut file::command(), "pinscope", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::DefaultConfig => print(&shipped::default_file()),
        Command::Metrics => print(&sink::prometheus::metrics_markdown()),
        Command::Exec { control, command } => {
            session::command::supervise(control, &command).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    limits::check()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()
        .context("cannot start the runtime")
}

fn doctor(wanted: &Doctor) -> Result<ExitCode> {
    limits::check()?;
    let (facts, plan) = session::tried(&wanted.probes)?;
    if wanted.json {
        print(&sink::json::printable(format!("{:#}\n", sink::doctor::json(&facts, &plan)?)))?;
    } else {
        print(&sink::doctor::text(&facts, &plan))?;
    }
    Ok(ExitCode::from(sink::doctor::exit_code(plan.verdict())))
}

fn write_manual(folder: &std::path::Path) -> Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let pages = manual::pages().context("cannot make the manual pages")?;
    for (name, text) in pages {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough, such as `head`, is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}
