//! Parse, build, run.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use pinscope::{
    cli::args::{Arguments, Command, Doctor},
    kernel::{Facts, Sources},
    probe::{plan, table},
    session, sink,
};
use tracing_subscriber::EnvFilter;

/// Exit code of a command line that cannot be followed.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log_to_stderr(arguments.verbose);
    match run(arguments) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, its causes behind it.
            eprintln!("pinscope: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
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
    let text = error.to_string();
    let said: Vec<_> = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let said = said.join(" ");
    eprintln!("pinscope: {}; see pinscope --help", said.trim().trim_start_matches("error: "));
    ExitCode::from(USAGE)
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let verbose = arguments.verbose > 0;
    match arguments.command {
        Command::Report(report) => runtime()?.block_on(session::report(&report, verbose)),
        Command::Audit(audit) => runtime()?.block_on(session::audit(&audit)),
        Command::Trace(trace) => runtime()?.block_on(session::trace(&trace, verbose)),
        Command::Daemon(daemon) => runtime()?.block_on(session::daemon(&daemon, verbose)),
        Command::Doctor(wanted) => doctor(&wanted),
        Command::Man { folder } => manual(&folder),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "pinscope", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Metrics => print(&sink::prometheus::metrics_markdown()),
        Command::Exec { command } => session::command::exec(&command).map(|()| ExitCode::FAILURE),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn doctor(wanted: &Doctor) -> Result<ExitCode> {
    let facts = Facts::gather(&Sources::default(), &table::wanted());
    let wish =
        plan::Wish { attach: wanted.probes.attach.into(), avoid: wanted.probes.avoid.clone(), ..plan::Wish::default() };
    let plan = plan::plan(&facts, &wish);
    if wanted.json {
        print(&format!("{:#}\n", sink::doctor::json(&facts, &plan)))?;
    } else {
        print(&sink::doctor::text(&facts, &plan))?;
    }
    Ok(ExitCode::from(sink::doctor::exit_code(plan.verdict())))
}

fn manual(folder: &std::path::Path) -> Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("cannot write the manual pages into {}", folder.display()))?;
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

/// `RUST_LOG` wins; the probes' own log has the object's crate name.
fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        // What aya says of the limit of locked memory is no matter where it does not count, and an error where it does.
        0 => "warn,aya::sys::bpf=error",
        1 => "info,pinscope_ebpf=debug",
        _ => "debug,aya_obj=warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}
