//! `cargo xtask bench`: measures what pinscope costs the tasks that it observes, in instructions.

mod figures;
mod goals;
mod script;
mod self_cost;
mod start;
mod table;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use self::{
    figures::{Attach, Case, Mode, Round},
    goals::{Subject, Verdict, self_cost_goal, verdicts},
    self_cost::Figure,
};
use crate::{
    artifacts,
    cache::Cache,
    exec::read,
    setup,
    vm::{
        BPFTRACE, Ending, Guest, Kernel,
        kernel::{SERIES, USUAL, preempts},
    },
    workspace,
};

/// Version of the output format.
const SCHEMA: u32 = 1;

/// Count the instructions that pinscope adds to registrations, page faults and O_DIRECT reads
///
/// Measures in a guest with one CPU whose clock counts instructions, without mitigations: the median of each operation
/// alone, and under pinscope's daemon and trace in both attach modes. On 6.12, also under bpftrace, which measures what
/// it can. A figure is the cost for the task that performs the operation; it does not include pinscope's user space.
/// The exit code is not 0 if something could not be measured. A missed goal is marked, but fails only with --check.
#[derive(Args)]
pub struct Options {
    /// Measure on the kernel of this series only (can be repeated) [default: 6.1, 6.12 and the newest]
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Measure on one kernel only (6.12 if none is named): the cases with goals, and the daemon
    #[arg(long)]
    quick: bool,
    /// Fail if a goal is missed
    #[arg(long)]
    check: bool,
    /// End a guest after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    deadline: u64,
    /// File for the figures as JSON [default: bench.json in the work tree]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Results of one kernel.
struct Measured {
    kernel: Kernel,
    /// The cases without an observer.
    alone: Round,
    rounds: Vec<Round>,
}

impl Measured {
    fn verdicts(&self) -> Vec<Verdict> {
        verdicts(&self.kernel.series, &self.alone, &self.rounds)
    }
}

pub fn bench(options: &Options) -> Result<ExitCode> {
    let all = series(options)?;
    setup::build_tools()?;
    let cache = Cache::open()?;
    setup::guest_tools(&cache)?;
    let binaries = (artifacts::pinscope()?, artifacts::guest()?);
    let mut measured = Vec::new();
    let mut failures = Vec::new();
    for series in all {
        match measure(&cache, series, &binaries, options) {
            Ok(of_kernel) => {
                let title = format!("Linux {} ({})", of_kernel.kernel.release, of_kernel.kernel.version);
                println!("\n{}", table::table(&title, series, &of_kernel.alone, &of_kernel.rounds));
                measured.push(of_kernel);
            }
            // Continue, so that results of the other kernels are still shown.
            Err(error) => failures.push(format!("Linux {series}: {error:#}")),
        }
    }
    let file = options.output.clone().unwrap_or_else(|| workspace::root().join("bench.json"));
    let text = serde_json::to_string_pretty(&document(&measured))?;
    fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    if !failures.is_empty() {
        bail!("not measured: {}", failures.join("\nnot measured: "));
    }
    let missed = measured.iter().flat_map(Measured::verdicts).any(|verdict| !verdict.met())
        || measured.iter().flat_map(|of| &of.rounds).any(Round::takes_too_much);
    Ok(if missed && options.check { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn series(options: &Options) -> Result<Vec<&str>> {
    for series in &options.kernel {
        if !SERIES.contains(&series.as_str()) {
            bail!("unknown kernel series {series}; known are {}", SERIES.join(", "));
        }
    }
    let [.., newest] = SERIES;
    Ok(match (options.kernel.is_empty(), options.quick) {
        (false, _) => options.kernel.iter().map(String::as_str).collect(),
        (true, true) => vec![USUAL],
        (true, false) => vec!["6.1", USUAL, newest],
    })
}

/// The modes of a kernel, in order.
fn modes(series: &str, quick: bool) -> Vec<Mode> {
    let mut modes = vec![Mode::Alone];
    modes.extend(Mode::DAEMON);
    let preempts = preempts(series);
    if preempts {
        modes.push(Mode::Daemon(Attach::Multi));
    }
    if !quick {
        modes.extend(Mode::TRACE);
        if preempts {
            modes.push(Mode::Trace(Attach::Multi));
        }
        if series == USUAL {
            modes.extend(Mode::BPFTRACE);
        }
    }
    modes
}

fn measure(cache: &Cache, series: &str, binaries: &(PathBuf, PathBuf), options: &Options) -> Result<Measured> {
    let kernel = Kernel::get(cache, series)?;
    let modes = modes(series, options.quick);
    let cases = if options.quick { Case::QUICK.to_vec() } else { Case::ALL.to_vec() };
    println!("bench: Linux {} ({}), {} modes of {} cases", kernel.release, kernel.version, modes.len(), cases.len());
    let mut guest = Guest::new(kernel.clone(), "bench", script::script(&modes, &cases))
        .counted()
        .file("/usr/bin/pinscope", 0o755, &binaries.0)
        .file("/usr/bin/guest", 0o755, &binaries.1)
        .deadline(Duration::from_secs(options.deadline));
    if modes.iter().any(|mode| matches!(mode, Mode::Bpftrace(_))) {
        guest = guest.packages(BPFTRACE);
        for (place, text) in script::BPFTRACE_FILES {
            guest = guest.text(place, 0o644, text);
        }
    }
    let outcome = guest.run(cache, &mut |line| {
        if line.starts_with("bench-mode ") || line.starts_with("bench-error ") {
            println!("bench: {series}: {}", line.trim_start_matches("bench-"));
        }
    })?;
    if let Some(trouble) = outcome.trouble()? {
        bail!("{trouble}");
    }
    if outcome.ending != Ending::Exited(0) {
        bail!("the script ended with {:?}; log: {}", outcome.ending, outcome.log.display());
    }
    let mut rounds = figures::rounds(&outcome.lines, &modes, &cases)
        .with_context(|| format!("the guest's log is {}", outcome.log.display()))?;
    let alone = rounds.remove(0);
    Ok(Measured { kernel, alone, rounds })
}

/// Content of `bench.json`:
/// `{"schema":1,"pinscope","commit","modified","figures":[{"kernel","series","case","mode","n","baseline","with","added","min","median","p10","p90"}],"further_vma":[{"kernel","series","mode","added"}],"memory":[{"kernel","series","mode","resident_kib"}],"own":[{"kernel","series","mode","of","value","goal","met"}],"start":[{"kernel","series","mode","step","instructions"}],"verified":[{"kernel","series","mode","program","instructions","budget"}],"goals":[{"kernel","series","mode","of","added","goal","met"}]}`.
///
/// All figures are instructions, except for memory and the daemon's own costs (`of` contains the unit). The members
/// after `added` are the distribution behind `with`. `commit` is null outside a git work tree.
fn document(measured: &[Measured]) -> Value {
    let git = |arguments: &[&str]| read(Command::new("git").args(arguments).current_dir(workspace::root())).ok();
    let commit = git(&["rev-parse", "HEAD"]).map(|commit| commit.trim().to_owned());
    let modified = git(&["status", "--porcelain", "--untracked-files=no"]).map(|changes| !changes.trim().is_empty());
    json!({
        "schema": SCHEMA,
        "pinscope": env!("CARGO_PKG_VERSION"),
        "commit": commit,
        "modified": modified,
        "figures": measured.iter().flat_map(cases).collect::<Vec<_>>(),
        "further_vma": measured.iter().flat_map(further_vmas).collect::<Vec<_>>(),
        "memory": measured.iter().flat_map(memory).collect::<Vec<_>>(),
        "own": measured.iter().flat_map(self_cost).collect::<Vec<_>>(),
        "start": measured.iter().flat_map(start).collect::<Vec<_>>(),
        "verified": measured.iter().flat_map(verified).collect::<Vec<_>>(),
        "goals": measured.iter().flat_map(goals).collect::<Vec<_>>(),
    })
}

fn cases(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    let pairs = of.rounds.iter().flat_map(|round| round.times.iter().map(move |times| (round, times)));
    pairs
        .map(|(round, times)| {
            json!({
                "kernel": release,
                "series": series,
                "case": times.case.name(),
                "mode": round.mode.to_string(),
                "n": times.n,
                "baseline": of.alone.figure(times.case),
                "with": times.figure(),
                "added": figures::added(&of.alone, round, times.case),
                "min": times.min,
                "median": times.median,
                "p10": times.p10,
                "p90": times.p90,
            })
        })
        .collect()
}

fn further_vmas(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    of.rounds
        .iter()
        .filter_map(|round| {
            let added = Subject::FurtherVma.added(&of.alone, round)?;
            Some(json!({ "kernel": release, "series": series, "mode": round.mode.to_string(), "added": added }))
        })
        .collect()
}

fn memory(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    of.rounds
        .iter()
        .filter_map(|round| {
            let (mode, kib) = (round.mode.to_string(), round.resident_kib?);
            Some(json!({ "kernel": release, "series": series, "mode": mode, "resident_kib": kib }))
        })
        .collect()
}

fn self_cost(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    let pairs = of.rounds.iter().flat_map(|round| Figure::ALL.map(|figure| (round, figure)));
    pairs
        .filter_map(|(round, figure)| {
            Some(json!({
                "kernel": release,
                "series": series,
                "mode": round.mode.to_string(),
                "of": figure.name(),
                "value": figure.value(&round.self_cost)?,
                "goal": self_cost_goal(figure),
                "met": figure.met(&round.self_cost),
            }))
        })
        .collect()
}

fn start(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    let pairs = of.rounds.iter().flat_map(|round| round.start.parts().map(move |part| (round, part)));
    pairs
        .map(|(round, (step, microseconds))| {
            let (mode, instructions) = (round.mode.to_string(), microseconds * 1000);
            json!({ "kernel": release, "series": series, "mode": mode, "step": step, "instructions": instructions })
        })
        .collect()
}

fn verified(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    let pairs = of.rounds.iter().flat_map(|round| round.start.programs().map(move |program| (round, program)));
    pairs
        .map(|(round, (program, instructions, budget))| {
            json!({
                "kernel": release,
                "series": series,
                "mode": round.mode.to_string(),
                "program": program,
                "instructions": instructions,
                "budget": budget,
            })
        })
        .collect()
}

fn goals(of: &Measured) -> Vec<Value> {
    let Kernel { release, series, .. } = &of.kernel;
    of.verdicts()
        .iter()
        .map(|verdict| {
            json!({
                "kernel": release,
                "series": series,
                "mode": verdict.mode.to_string(),
                "of": verdict.subject.name(),
                "added": verdict.added,
                "goal": verdict.goal,
                "met": verdict.met(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{figures::tests::round, *};

    fn measured() -> Measured {
        let kernel = Kernel {
            series: "6.12".to_owned(),
            release: "6.12.1".to_owned(),
            package: "linux-image".to_owned(),
            version: "6.12.1-1".to_owned(),
            vmlinuz: PathBuf::new(),
        };
        let alone = round(Mode::Alone, &[(Case::Pages1, 1000), (Case::Vmas64, 2000)]);
        let mut daemon = round(Mode::DAEMON[1], &[(Case::Pages1, 4801), (Case::Vmas64, 5801 + 6300)]);
        daemon.resident_kib = Some(5);
        Measured { kernel, alone, rounds: vec![daemon] }
    }

    #[test]
    fn the_document_has_every_figure() {
        let document = document(&[measured()]);
        assert_eq!(document["schema"], 1);
        assert_eq!(
            document["figures"][0],
            json!({ "kernel": "6.12.1", "series": "6.12", "case": "pages1", "mode": "daemon kprobe", "n": 10,
                "baseline": 1000, "with": 4801, "added": 3801, "min": 4799, "median": 4801, "p10": 4800, "p90": 4802 })
        );
        assert_eq!(document["further_vma"][0]["added"], 100.0);
        assert_eq!(document["memory"][0]["resident_kib"], 5);
        let goals = document["goals"].as_array().unwrap();
        let met: Vec<_> = goals.iter().map(|goal| (goal["of"].as_str().unwrap(), goal["met"] == true)).collect();
        assert_eq!(met, [("pages1", false), ("further_vma", true)]);
    }

    #[test]
    fn bpftrace_is_measured_where_its_figures_are_known() {
        assert_eq!(modes("6.12", true), [Mode::Alone, Mode::DAEMON[0], Mode::DAEMON[1]]);
        assert_eq!(modes("6.12", false).len(), 7);
        assert_eq!(modes("7.3", false).len(), 7);
    }
}
