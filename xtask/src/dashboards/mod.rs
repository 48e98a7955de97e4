//! `cargo xtask dashboards`: generates Grafana's dashboards, and checks them and Prometheus' rules.

mod against;
mod expressions;
mod fleet;
mod grafana;
mod host;
mod query;
mod steps;
#[cfg(test)]
mod tests;
mod upgrade;
mod variable;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::workspace;

pub use steps::steps;

/// Write Grafana's dashboards into dashboards/, or check them and the rules
#[derive(Args)]
pub struct Options {
    /// Write nothing: compare the files with the code, check the rules with promtool, and the dashboards with Grafana's
    /// schema
    #[arg(long)]
    check: bool,
    /// Print every expression of the dashboards and the rules as JSON, with the variables filled in
    #[arg(long, conflicts_with = "check")]
    expressions: bool,
    /// Query the Prometheus at this address for every expression, and list those without data
    #[arg(long, value_name = "URL", conflicts_with_all = ["check", "expressions"])]
    against: Option<String>,
    /// Time that replaces Grafana's rate interval and range in the queries
    #[arg(long, value_name = "TIME", default_value = "2m")]
    window: String,
    /// Time to query for, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS", requires = "against")]
    at: Option<u64>,
}

pub fn dashboards(options: &Options) -> Result<ExitCode> {
    if options.check {
        for (what, step) in steps() {
            println!("== {what}");
            step()?;
        }
    } else if options.expressions {
        println!("{}", expressions(&options.window)?);
    } else if let Some(address) = &options.against {
        return against::against(address, options.at, &expressions::all(&options.window)?);
    } else {
        for (path, text) in files()? {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All expressions of the dashboards and the rules as JSON, with the variables filled in; see `--window`.
pub fn expressions(window: &str) -> Result<String> {
    let all: Vec<_> = expressions::all(window)?.iter().map(expressions::Expression::json).collect();
    Ok(serde_json::to_string_pretty(&all)?)
}

/// Folder of the dashboards, the rules and their tests.
fn folder() -> PathBuf {
    workspace::root().join("dashboards")
}

/// The dashboards with their file names.
fn all() -> [(&'static str, grafana::Dashboard); 3] {
    [("fleet.json", fleet::dashboard()), ("host.json", host::dashboard()), ("upgrade.json", upgrade::dashboard())]
}

/// The files and the content that the code generates for them.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let one = |(name, dashboard): (&str, grafana::Dashboard)| {
        Ok((folder().join(name), serde_json::to_string_pretty(&dashboard.json())? + "\n"))
    };
    all().into_iter().map(one).collect()
}

/// Fails if the files differ from what the code generates.
fn are_generated() -> Result<()> {
    for (path, wanted) in files()? {
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present != wanted {
            let differs = present.lines().zip(wanted.lines()).position(|(a, b)| a != b);
            let line = differs.unwrap_or_else(|| present.lines().count().min(wanted.lines().count())) + 1;
            bail!("{} is out of date from line {line} on: `cargo xtask dashboards` regenerates it", shown(&path));
        }
    }
    Ok(())
}

/// A path relative to the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}

/// Files with this extension in a folder below dashboards/, sorted by name.
fn listed(below: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let folder = folder().join(below);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    if found.is_empty() {
        bail!("no .{extension} in {}", folder.display());
    }
    Ok(found)
}
