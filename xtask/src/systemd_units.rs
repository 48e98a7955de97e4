//! Checks the systemd units: systemd must read them without complaint, and their exposure must stay low.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    exec::{exec, read},
    setup,
    workspace::{root, target},
};

/// Highest exposure that `systemd-analyze security` may report, in tenths.
const MOST_EXPOSURE: u32 = 20;
/// Program that the unit runs on an installed machine.
const INSTALLED: &str = "/usr/bin/pinscope";

/// Checks the units of a folder. systemd checks that the program of a unit exists, so a copy of the unit names `binary`
/// instead.
pub fn check(folder: &Path, binary: &Path) -> Result<()> {
    if !setup::has_program("systemd-analyze") {
        setup::install(&["systemd"], "systemd-analyze, which checks the units")?;
    }
    let copies = target().join("units");
    fs::create_dir_all(&copies).with_context(|| format!("cannot make {}", copies.display()))?;
    let mut units = Vec::new();
    for name in ["pinscope.service", "pinscope.socket"] {
        let (from, to) = (folder.join(name), copies.join(name));
        let unit = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let unit = unit.replace(&format!("={INSTALLED} "), &format!("={} ", binary.display()));
        fs::write(&to, unit).with_context(|| format!("cannot write {}", to.display()))?;
        units.push(to);
    }
    exec(analyze().args(["verify", "--man=no", "--recursive-errors=yes"]).args(&units))?;
    let mut security = analyze();
    security.args(["security", "--offline=true", "--no-pager"]).arg(format!("--threshold={MOST_EXPOSURE}"));
    // The table is shown only if the check fails.
    read(security.arg(&units[0])).map(drop)
}

/// Checks the units of the work tree.
pub fn check_work_tree(binary: &Path) -> Result<()> {
    check(&root().join("tracer/pkg"), binary)
}

fn analyze() -> Command {
    let mut command = Command::new("systemd-analyze");
    // Independent of the user's pager and colours.
    command.env("SYSTEMD_PAGER", "cat").env("SYSTEMD_COLORS", "0");
    command
}
