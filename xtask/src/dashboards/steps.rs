//! Checks of the dashboards and the rules by other programs: promtool, and Grafana's own schema.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{are_generated, folder, listed};
use crate::{
    apt::Archive,
    cache::Cache,
    exec::{exec, read},
    setup,
};

/// Debian suite that provides Prometheus. It is a Go program and needs no libraries of its release.
const SUITE: &str = "trixie";
/// Python package with the schema of Grafana 11, including the types of its panels.
const SDK: &str = "grafana-foundation-sdk==1769699379!11.6.0";
const SDK_PLACE: &str = "tools/grafana-foundation-sdk-11.6.0";
const ROUND_TRIP: &str = include_str!("round_trip.py");

/// Name of a check, and the check.
pub type Step = (&'static str, fn() -> Result<()>);

/// The checks, quickest first.
pub fn steps() -> [Step; 4] {
    [
        ("dashboards, generated", are_generated),
        ("promtool check rules", check_rules),
        ("promtool test rules", test_rules),
        ("dashboards, Grafana's schema", round_trip),
    ]
}

fn check_rules() -> Result<()> {
    exec(Command::new(promtool()?).args(["check", "rules", "--lint-fatal"]).args(listed("rules", "yml")?))
}

fn test_rules() -> Result<()> {
    exec(Command::new(promtool()?).args(["test", "rules"]).args(listed("tests", "yml")?).current_dir(folder()))
}

/// Checks that each dashboard survives a round trip through the schema's types.
fn round_trip() -> Result<()> {
    exec(Command::new(sdk()?).args(["-c", ROUND_TRIP]).args(listed("", "json")?))
}

/// Paths of promtool and prometheus, unpacked into the cache.
fn promtool() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let name = format!("tools/prometheus-{SUITE}");
    let mut place = cache.path(&name);
    if !place.is_dir() {
        let guard = cache.lock()?;
        place = cache.folder(&name, &guard, |folder| {
            println!("setup: prometheus and promtool of Debian {SUITE}, check the rules; downloaded into the cache");
            let archive = Archive::open(&cache, &guard, SUITE, &[SUITE])?;
            archive.unpack(&["prometheus", "promtool"].map(str::to_owned), folder, &folder.join("root"))
        })?;
    }
    let program = place.join("root/usr/bin/promtool");
    if !program.is_file() {
        bail!("{} is missing in Debian's package promtool", program.display());
    }
    Ok(program)
}

/// A Python interpreter with Grafana's schema.
fn sdk() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let mut place = cache.path(SDK_PLACE);
    if !place.is_dir() {
        setup::install(&["python3-venv"], "Grafana's schema is a Python package")?;
        let guard = cache.lock()?;
        place = cache.folder(SDK_PLACE, &guard, |folder| {
            println!("setup: {SDK}, checks the dashboards; installed by pip into the cache");
            read(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let pip = |python: &Path| {
                let mut pip = Command::new(python);
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", SDK]);
                pip
            };
            read(&mut pip(&folder.join("bin/python")))
                .map(drop)
                .with_context(|| format!("{SDK} cannot be had from PyPI"))
        })?;
    }
    Ok(place.join("bin/python"))
}
