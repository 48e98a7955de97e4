//! A command that is traced from its first instruction.
//!
//! pinscope starts itself with `__exec` in the command's place. That process stops, the probes are attached with its
//! id as the ancestor to follow, and when it is let go it becomes the command.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitStatus};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// A command that has not begun, or is running.
pub struct Command {
    child: tokio::process::Child,
    pid: Pid,
    shown: String,
}

impl Command {
    /// Starts the process that will become the command, and returns when it stands still.
    pub fn hold(argv: &[OsString]) -> Result<Self> {
        // What descends from the command is found by the way up to this process: its orphans are to come back to it.
        nix::sys::prctl::set_child_subreaper(true).context("cannot become the parent of the command's orphans")?;
        let shown = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let child = tokio::process::Command::new("/proc/self/exe")
            .arg("__exec")
            .arg("--")
            .args(argv)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process for the command")?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .context("the process for the command ended at once")?;
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(pid), stopped).context("cannot wait for the command")?;
        if !status.is_some_and(|status| status.stopped()) {
            bail!("the process for the command {shown} ended before it began");
        }
        Ok(Self { child, pid, shown })
    }

    /// Waits for the orphans that came back to this process and have ended, the command itself left alone: whoever waits
    /// for that one learns its status.
    pub fn reap_orphans(&self) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        // Where the command is the one that is told of, the session ends.
        while let Ok(status) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT)
            && let Some(orphan) = status.pid().filter(|pid| pid.as_raw() != self.pid.as_raw_nonzero().get())
            && waitid(Id::Pid(orphan), ended).is_ok()
        {}
    }

    /// Lets it become the command.
    pub fn release(&self) -> Result<()> {
        self.signal(Signal::CONT).with_context(|| format!("cannot let {} run", self.shown))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        rustix::process::kill_process(self.pid, signal)
    }

    /// Waits for its end. Cancel-safe.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.with_context(|| format!("cannot wait for {}", self.shown))
    }
}

/// What runs in the command's place until it is let go. Returns only where it fails.
pub fn exec(argv: &[OsString]) -> Result<()> {
    let [name, arguments @ ..] = argv else { bail!("no command was given") };
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).context("cannot wait to be let go")?;
    let error = std::process::Command::new(name).args(arguments).exec();
    bail!("cannot run {}: {error}", name.to_string_lossy())
}
