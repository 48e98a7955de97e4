//! Tests of the package and its service on a Debian system with systemd: installed, run and removed as an administrator
//! does it.

mod degraded;
mod lifecycle;
mod package;
mod privileges;
mod reload;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    daemon::Scrape,
    http,
    protocol::Test,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    systemd::{Cursor, Entry, Status, run, succeed},
};

pub const UNIT: &str = "pinscope.service";
pub const SOCKET: &str = "pinscope.socket";
/// Path in the guest of the package under test.
const PACKAGE: &str = "/root/pinscope.deb";
/// Folder with the package's unpacked content, for comparison.
const UNPACKED: &str = "/run/pinscope-package";
const CONFIG: &str = "/etc/pinscope/pinscope.toml";
/// Drop-in for the tests' changes to the unit, gone after a reboot.
const DROP_IN: &str = "/run/systemd/system/pinscope.service.d";
/// Address that the packaged service listens on.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9757);
/// Timeout for a start on a busy machine.
pub const START: Duration = Duration::from_mins(1);

pub fn tests() -> Vec<Test> {
    // The tests of installation and removal are the first and the last.
    let mut tests = vec![package::install()];
    tests.extend(lifecycle::tests());
    tests.extend(privileges::tests());
    tests.extend(reload::tests());
    tests.extend(degraded::tests());
    tests.extend(package::others());
    tests
}

/// Starts the service as packaged, after undoing the changes of earlier tests.
pub fn fresh() -> anyhow::Result<Status> {
    pristine()?;
    succeed(&["systemctl", "start", UNIT])?;
    let status = Status::of(UNIT)?;
    ensure!(status.is_active(), "systemctl start succeeded, but {UNIT} is {}", status.get("ActiveState"));
    Ok(status)
}

/// Resets the installed package: its own configuration, and nothing running.
pub fn pristine() -> anyhow::Result<()> {
    if !is_installed()? {
        succeed(&["apt-get", "install", "--yes", PACKAGE])?;
    }
    succeed(&["systemctl", "stop", SOCKET, UNIT])?;
    if fs::remove_dir_all(DROP_IN).is_ok() {
        succeed(&["systemctl", "daemon-reload"])?;
    }
    original_configuration()?;
    kernel_configuration()?;
    // Fails if no unit has failed.
    let _ = run(&["systemctl", "reset-failed", UNIT, SOCKET])?;
    Ok(())
}

/// Provides the configuration of the kernel, which belongs to the kernel's package; the guest boots without that
/// package. The service reads the default preemption mode from it. The mode in force is this one, and root can read it.
fn kernel_configuration() -> anyhow::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let place = format!("/boot/config-{}", release.trim());
    let Ok(modes) = fs::read_to_string("/sys/kernel/debug/sched/preempt") else { return Ok(()) };
    let mode = modes.split(['(', ')']).nth(1).context("no mode of preemption in force")?;
    let option = match mode {
        "full" => "CONFIG_PREEMPT=y".to_owned(),
        other => format!("CONFIG_PREEMPT_{}=y", other.to_uppercase()),
    };
    fs::create_dir_all("/boot")?;
    fs::write(place, option + "\n")?;
    Ok(())
}

/// Restores the package's configuration.
fn original_configuration() -> anyhow::Result<()> {
    let original = unpacked()?.join(CONFIG.trim_start_matches('/'));
    fs::copy(&original, CONFIG).with_context(|| format!("copying {}", original.display()))?;
    Ok(())
}

/// Changes the unit for a test: lines for its section `[Service]`.
fn override_unit(lines: &str) -> anyhow::Result<()> {
    fs::create_dir_all(DROP_IN)?;
    fs::write(Path::new(DROP_IN).join("test.conf"), format!("[Service]\n{lines}\n"))?;
    succeed(&["systemctl", "daemon-reload"])
}

/// Appends lines to the configuration.
fn configure(lines: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(CONFIG)?;
    fs::write(CONFIG, format!("{text}\n{lines}\n")).with_context(|| format!("writing {CONFIG}"))
}

fn is_installed() -> anyhow::Result<bool> {
    let asked = run(&["dpkg-query", "--show", "--showformat", "${db:Status-Status}", "pinscope"])?;
    Ok(asked.stdout == "installed")
}

/// Folder with the package's content.
fn unpacked() -> anyhow::Result<&'static Path> {
    let folder = Path::new(UNPACKED);
    if !folder.exists() {
        succeed(&["dpkg-deb", "--extract", PACKAGE, UNPACKED])?;
    }
    Ok(folder)
}

/// Fetches /metrics once: a started service must answer.
pub fn scrape() -> anyhow::Result<Scrape> {
    http::get(ADDRESS, "/metrics", Duration::from_secs(20)).map(Scrape::of)
}

fn port_is_closed() -> bool {
    TcpStream::connect_timeout(&ADDRESS, Duration::from_secs(5)).is_err()
}

/// Makes `count` successful registrations and releases each.
fn register(count: u32) -> anyhow::Result<()> {
    let mut space = Space::new(PAGE);
    let buffers = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    for _ in 0..count {
        let ring = Ring::new()?;
        for request in [Request::Register(&buffers), Request::Unregister] {
            let answer = ring.call(request);
            ensure!(answer.ret >= 0, "{} gave {}", request.operation(), answer.ret);
        }
    }
    Ok(())
}

/// Number of registrations counted so far.
fn registered() -> anyhow::Result<u64> {
    Ok(scrape()?.registrations()?.count("register", "ok"))
}

/// Fails unless an entry is at least as severe as `priority` (0 is the most severe) and contains all the words.
fn expect_entry(entries: &[Entry], priority: u8, words: &[&str]) -> anyhow::Result<()> {
    let fits = |entry: &Entry| {
        entry.priority().is_some_and(|of_entry| of_entry <= priority)
            && words.iter().all(|word| entry.json().to_string().contains(word))
    };
    let all: Vec<_> = entries.iter().map(|entry| format!("{:?} {}", entry.priority(), entry.message())).collect();
    ensure!(entries.iter().any(fits), "no entry of priority {priority} with {words:?} among:\n{}", all.join("\n"));
    Ok(())
}

/// Whether the kernel's register function is hooked, according to ftrace.
fn is_hooked() -> anyhow::Result<bool> {
    const HOOKED: &str = "/sys/kernel/tracing/enabled_functions";
    let hooked = fs::read_to_string(HOOKED).with_context(|| HOOKED.to_owned())?;
    Ok(hooked.lines().any(|line| line.starts_with("io_sqe_buffers_register ")))
}

/// Processes that run the package's program.
fn processes() -> anyhow::Result<Vec<String>> {
    let found = fs::read_dir("/proc")?.flatten().filter(|entry| {
        fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.to_string_lossy().starts_with("/usr/bin/pinscope"))
    });
    Ok(found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
