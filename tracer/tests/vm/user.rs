//! Runs a program as an unprivileged user with a few capabilities, as a service manager does.

use std::{
    collections::HashSet, ffi::OsString, fs, io, os::fd::AsRawFd as _, os::unix::process::CommandExt as _,
    process::Command, process::ExitCode,
};

use anyhow::Context as _;
use caps::{CapSet, Capability};
use clap::Args;

/// The user nobody.
const USER: u32 = 65534;

/// Capabilities that pinscope.service grants.
pub const SERVICE: &[&str] = &["CAP_BPF", "CAP_PERFMON"];

/// `guest as-user`.
#[derive(Args)]
pub struct Options {
    /// Capabilities that the user keeps across exec, such as CAP_BPF.
    #[arg(long)]
    capability: Vec<Capability>,
    /// Start in a time namespace whose clocks are this many seconds ahead.
    #[arg(long)]
    ahead: Option<u64>,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Words that precede a command to run it in this way.
pub fn as_user(capabilities: &[&str]) -> anyhow::Result<Vec<OsString>> {
    let mut words = vec![std::env::current_exe()?.into_os_string(), "as-user".into()];
    words.extend(capabilities.iter().flat_map(|capability| ["--capability", capability]).map(OsString::from));
    words.push("--".into());
    Ok(words)
}

/// [`as_user`] in a time namespace whose clocks are that many seconds ahead.
pub fn as_user_ahead(capabilities: &[&str], seconds: u64) -> anyhow::Result<Vec<OsString>> {
    let mut words = as_user(capabilities)?;
    words.splice(2..2, ["--ahead".into(), seconds.to_string().into()]);
    Ok(words)
}

/// Switches to the user and executes the program in the same process.
pub fn run(options: &Options) -> ExitCode {
    let ahead = options.ahead.map_or(Ok(()), go_ahead);
    let error = match ahead.and_then(|()| become_user(&options.capability.iter().copied().collect())) {
        Ok(()) => anyhow::Error::from(Command::new(&options.command[0]).args(&options.command[1..]).exec()),
        Err(error) => error,
    };
    eprintln!("guest as-user: {error:#}");
    ExitCode::FAILURE
}

fn go_ahead(seconds: u64) -> anyhow::Result<()> {
    // SAFETY: the call takes integers only.
    if unsafe { libc::unshare(CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error()).context("making a time namespace");
    }
    fs::write("/proc/self/timens_offsets", format!("monotonic {seconds} 0\nboottime {seconds} 0\n"))?;
    let namespace = fs::File::open("/proc/self/ns/time_for_children")?;
    // SAFETY: the descriptor is open; the rest is integers.
    if unsafe { libc::setns(namespace.as_raw_fd(), CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error()).context("entering the time namespace");
    }
    Ok(())
}

/// Of `linux/sched.h`, since 5.6.
const CLONE_NEWTIME: libc::c_int = 0x80;

fn become_user(capabilities: &HashSet<Capability>) -> anyhow::Result<()> {
    for capability in caps::all().difference(capabilities) {
        // Fails for a capability unknown to this kernel.
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    // As in the unit; BPF maps count against this limit before 5.11.
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: integers, a limit that outlives the call, and a null pointer for an empty list.
    let became = unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) == 0
            && libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(USER) == 0
            && libc::setuid(USER) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    };
    if !became {
        return Err(io::Error::last_os_error()).context("becoming the user");
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, capabilities).with_context(|| format!("setting {set:?}"))?;
    }
    Ok(())
}

/// A line of `/proc/PID/task/*/status` for each thread.
pub fn of_threads(pid: u32, line: &str) -> anyhow::Result<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")?;
    threads
        .map(|thread| {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
            Ok(found.with_context(|| format!("no {line}"))?.trim().to_owned())
        })
        .collect()
}
