//! `cargo xtask run`: the main job, pinscope around a real workload.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    artifacts,
    cache::Cache,
    exec::{quote, show, succeeds},
    setup,
    vm::{Ending, FIO, Guest, Kernel, kernel::USUAL},
    workspace,
};

/// Workload: fio with several kinds of memory.
const WORKLOAD: &str = include_str!("workload.sh");
/// pinscope's sub-commands that observe a workload.
const SESSIONS: [&str; 4] = ["report", "trace", "audit", "daemon"];

#[derive(Args)]
pub struct Options {
    /// Use a guest with a kernel of this series, even if this machine's kernel can be traced
    #[arg(long, value_name = "SERIES")]
    kernel: Option<String>,
    /// End the guest after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    deadline: u64,
    /// Arguments for pinscope, instead of `report -- WORKLOAD`
    #[arg(last = true)]
    pinscope: Vec<String>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::build_tools()?;
    let pinscope = artifacts::pinscope()?;
    let reason = match &options.kernel {
        Some(series) => format!("Linux {series} was requested"),
        None if succeeds(Command::new(&pinscope).arg("doctor")) => return here(&pinscope, options),
        None => "this machine's kernel cannot be traced according to `pinscope doctor`".to_owned(),
    };
    in_guest(&pinscope, options, &reason)
}

fn here(pinscope: &Path, options: &Options) -> Result<ExitCode> {
    setup::install(&["fio"], "the workload")?;
    println!("run: on this machine, whose kernel can be traced according to `pinscope doctor`");
    let folder = workspace::target().join("workload");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let workload = folder.join("workload.sh");
    fs::write(&workload, WORKLOAD).with_context(|| format!("cannot write {}", workload.display()))?;
    fs::set_permissions(&workload, fs::Permissions::from_mode(0o755))?;
    let script = script(&pinscope.to_string_lossy(), &workload.to_string_lossy(), &options.pinscope);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).current_dir(&folder);
    let status = shell.status().with_context(|| format!("cannot run `{}`", show(&shell)))?;
    Ok(exit_code(status.code().unwrap_or(1)))
}

fn in_guest(pinscope: &Path, options: &Options, reason: &str) -> Result<ExitCode> {
    let cache = Cache::open()?;
    setup::guest_tools(&cache)?;
    let kernel = Kernel::get(&cache, options.kernel.as_deref().unwrap_or(USUAL))?;
    println!("run: in a guest with Linux {} ({}), since {reason}", kernel.release, kernel.version);
    let script = format!("cd /mnt/ext4\n{}", script("pinscope", "workload", &options.pinscope));
    let outcome = Guest::new(kernel, "run", script)
        .file("/usr/bin/pinscope", 0o755, pinscope)
        .text("/usr/bin/workload", 0o755, WORKLOAD)
        .packages(FIO)
        .deadline(Duration::from_secs(options.deadline))
        .run(&cache, &mut |line| println!("{line}"))?;
    if let Some(trouble) = outcome.trouble()? {
        eprintln!("{trouble}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(match outcome.ending {
        Ending::Exited(code) => exit_code(code),
        _ => ExitCode::FAILURE,
    })
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Shell script that runs pinscope around the workload, around the caller's command, or beside the workload.
fn script(pinscope: &str, workload: &str, arguments: &[String]) -> String {
    let (pinscope, workload) = (quote(pinscope), quote(workload));
    let words: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
    let words = words.join(" ");
    if arguments.is_empty() {
        return format!("{pinscope} report -- {workload}\n");
    }
    let session = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_session = session.is_some_and(|name| SESSIONS.contains(&name.as_str()));
    let asks_for_help = arguments.iter().any(|argument| argument == "-h" || argument == "--help");
    let has_command = arguments.iter().any(|argument| argument == "--");
    if !is_session || asks_for_help || has_command {
        return format!("{pinscope} {words}\n");
    }
    // Starts the workload when pinscope has attached its probes, that is, when its count of file descriptors of these
    // kinds stops growing. pinscope ends on SIGINT, or earlier on its own. (A shell starts background commands with
    // SIGINT ignored. This does not matter here, because pinscope installs its own handler.)
    format!(
        r#"{pinscope} {words} &
pinscope=$!
probes() {{ ls -l /proc/$pinscope/fd 2>/dev/null | grep -c -E 'bpf[-_]link|perf_event|raw-tracepoint'; }}
before=0
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 $pinscope 2>/dev/null || break
    sleep 0.5
    now=$(probes)
    [ "$now" -gt 0 ] && [ "$now" = "$before" ] && break
    before=$now
done
if kill -0 $pinscope 2>/dev/null; then
    {workload}
    kill -INT $pinscope 2>/dev/null
fi
wait $pinscope
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_main_job_is_a_report_around_the_workload() {
        assert_eq!(script("pinscope", "workload", &[]), "pinscope report -- workload\n");
    }

    #[test]
    fn a_command_of_the_callers_replaces_the_workload() {
        let script = script("pinscope", "workload", &words("report --json -- fio job"));
        assert_eq!(script, "pinscope report --json -- fio job\n");
    }

    #[test]
    fn a_session_without_a_command_gets_the_workload_beside_it() {
        for arguments in ["trace", "-v report --json", "daemon"] {
            let script = script("pinscope", "workload", &words(arguments));
            assert!(script.starts_with(&format!("pinscope {arguments} &\n")), "{script}");
            assert!(script.contains("\n    workload\n    kill -INT $pinscope"), "{script}");
        }
    }

    #[test]
    fn other_commands_get_no_workload() {
        for arguments in ["doctor --json", "man", "report --help"] {
            assert_eq!(script("pinscope", "workload", &words(arguments)), format!("pinscope {arguments}\n"));
        }
    }
}
