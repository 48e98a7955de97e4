//! Tests of installation, upgrade, removal and purge.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{CONFIG, PACKAGE, Status, UNIT, fresh, is_installed, port_is_closed, processes, scrape, succeed, unpacked};
use crate::{
    context::Context,
    protocol::{Test, TestResult, Verdict},
    systemd::{output, run},
};

const TIME: Duration = Duration::from_mins(6);

pub fn install() -> Test {
    Test::new("debian_package_installs", installs).within(TIME)
}

/// The last of them leaves nothing behind.
pub fn others() -> Vec<Test> {
    vec![
        Test::new("debian_package_upgrades", upgrades).within(TIME),
        Test::new("debian_package_purges", purges).within(TIME),
    ]
}

/// On a machine without a network, the package installs only if its dependencies are present.
fn installs(_: &Context) -> TestResult {
    if is_installed()? {
        succeed(&["apt-get", "purge", "--yes", "pinscope"])?;
    }
    succeed(&["apt-get", "install", "--yes", PACKAGE])?;
    ensure!(is_installed()?, "installed by apt-get, but unknown to dpkg");
    let complaints = output(&["dpkg", "--verify", "pinscope"])?;
    ensure!(complaints.is_empty(), "dpkg --verify: {complaints}");
    succeed(&["systemctl", "is-enabled", UNIT])?;
    // The configuration may contain a collector's token.
    let mode = output(&["stat", "--format=%a %U:%G", CONFIG])?;
    ensure!(mode.trim() == "640 root:pinscope", "{CONFIG} is {mode}");
    // In Debian, installing a package starts its service.
    ensure!(Status::of(UNIT)?.is_active(), "installed, but {}", Status::of(UNIT)?.get("ActiveState"));
    scrape()?;
    let version = output(&["pinscope", "--version"])?;
    let packaged = output(&["dpkg-query", "--show", "--showformat", "${Version}", "pinscope"])?;
    let upstream = packaged.split('-').next().unwrap_or_default();
    ensure!(version.contains(upstream), "pinscope says {version}, its package {packaged}");
    // The installed program is the package's.
    let same = fs::read("/usr/bin/pinscope")? == fs::read(unpacked()?.join("usr/bin/pinscope"))?;
    ensure!(same, "/usr/bin/pinscope is not the package's");
    Ok(Verdict::Passed)
}

/// Upgrade to a higher version: the changed configuration stays, and the service runs the new program.
fn upgrades(_: &Context) -> TestResult {
    const VERSION: &str = "999.0-1";
    const MINE: &str = "\n# The administrator's own line.\nrings = true\n";
    let before = fresh()?;
    let mine = fs::read_to_string(CONFIG)? + MINE;
    fs::write(CONFIG, &mine)?;
    let newer = rebuilt(VERSION)?;
    succeed(&["apt-get", "install", "--yes", &newer.display().to_string()])?;
    let version = output(&["dpkg-query", "--show", "--showformat", "${Version}", "pinscope"])?;
    ensure!(version == VERSION, "the version is {version}");
    ensure!(fs::read_to_string(CONFIG)? == mine, "the administrator's configuration is gone");
    let after = Status::of(UNIT)?;
    ensure!(after.is_active(), "after the upgrade it is {}", after.get("ActiveState"));
    ensure!(after.main_pid() != before.main_pid(), "the old process still runs");
    let program = fs::read_link(format!("/proc/{}/exe", after.main_pid()))?;
    ensure!(program == Path::new("/usr/bin/pinscope"), "the running program is {}", program.display());
    let follows = scrape()?.samples("pinscope_ring_age_seconds_count").count();
    ensure!(follows == 1, "it does not follow the administrator's configuration");
    succeed(&["systemctl", "is-enabled", UNIT])?;
    // Returns to the package under test.
    succeed(&["dpkg", "--install", PACKAGE])?;
    ensure!(fs::read_to_string(CONFIG)? == mine, "the administrator's configuration is gone after the downgrade");
    Ok(Verdict::Passed)
}

/// Rebuilds the package with another version.
fn rebuilt(version: &str) -> anyhow::Result<PathBuf> {
    let (tree, package) = (Path::new("/root/rebuilt"), PathBuf::from("/root/rebuilt.deb"));
    let _ = fs::remove_dir_all(tree);
    let folder = tree.display().to_string();
    succeed(&["dpkg-deb", "--raw-extract", PACKAGE, &folder])?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let line = text.lines().find(|line| line.starts_with("Version: ")).context("no version in the package")?;
    fs::write(&control, text.replace(line, &format!("Version: {version}")))?;
    succeed(&["dpkg-deb", "--root-owner-group", "-Znone", "--build", &folder, &package.display().to_string()])?;
    fs::remove_dir_all(tree)?;
    Ok(package)
}

/// Removing the package keeps its configuration; purging it leaves nothing.
fn purges(_: &Context) -> TestResult {
    fresh()?;
    succeed(&["apt-get", "remove", "--yes", "pinscope"])?;
    ensure!(Path::new(CONFIG).is_file(), "removed but not purged, and the configuration is gone");
    ensure!(processes()?.is_empty(), "removed, but still running: {:?}", processes()?);
    ensure!(port_is_closed(), "removed, but the port is open");
    // Includes a file of the administrator's.
    fs::write("/etc/pinscope/notes", "mine")?;
    succeed(&["apt-get", "purge", "--yes", "pinscope"])?;
    let mut left = Vec::new();
    for path in output(&["find", "/run/pinscope-package", "-not", "-type", "d"])?.lines() {
        let path = path.trim_start_matches("/run/pinscope-package");
        left.extend(Path::new(path).symlink_metadata().is_ok().then(|| path.to_owned()));
    }
    let places = ["/etc", "/var/lib/systemd", "/var/lib/pinscope", "/var/log/pinscope", "/run/pinscope"];
    for place in places.iter().filter(|place| Path::new(place).exists()) {
        left.extend(output(&["find", place, "-name", "*pinscope*"])?.lines().map(str::to_owned));
    }
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(run(&["systemctl", "cat", UNIT])?.code() != 0, "systemd still has {UNIT}");
    ensure!(Status::of(UNIT)?.get("LoadState") == "not-found", "LoadState={}", Status::of(UNIT)?.get("LoadState"));
    let state = run(&["dpkg-query", "--show", "--showformat", "${db:Status-Status}", "pinscope"])?;
    ensure!(state.stdout != "config-files", "dpkg remembers it");
    Ok(Verdict::Passed)
}
