//! What ends a session: a signal, the time, the traced process, the command.

use std::{
    io::IsTerminal as _,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::{
    command::{Command, CommandEnd},
    starting,
};
use crate::{cli::config::Scope, say, source::wait};

/// How long a command that a terminal's Ctrl-C has reached as well gets to end before the signal is sent on.
const GRACE: Duration = Duration::from_millis(300);

/// Says that the session is attached, and what ends it: to a terminal always, elsewhere where only a signal will, for scripts that
/// then start what is to be measured. `then` is what it does in the end; without it there is another sign that it has begun.
pub fn announce(scope: &Scope, then: &str) {
    let end = ends(scope);
    let only_by_signal = scope.command.is_none() && scope.duration.is_none();
    if std::io::stderr().is_terminal() || only_by_signal && !then.is_empty() {
        say::line(format_args!("pinscope: attached; {end} ends the session{then}"));
    }
}

/// All that ends the session, in words.
fn ends(scope: &Scope) -> String {
    let ends = [
        scope.command.is_some().then(|| "the command's end".to_owned()),
        scope.pid.map(|pid| format!("the end of process {pid}")),
        scope.duration.map(|duration| format!("the end of {}", humantime::format_duration(duration))),
    ];
    let mut ends: Vec<_> = ends.into_iter().flatten().collect();
    ends.push("Ctrl-C".to_owned());
    ends.join(" or ")
}

/// The signals that end a session.
struct Signals {
    interrupt: Stream,
    terminate: Stream,
    /// `None` where whoever started pinscope has it ignored (`nohup`): it stays so.
    hangup: Option<Stream>,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let hangup = if is_ignored(libc::SIGHUP) { None } else { Some(listen(SignalKind::hangup())?) };
        let of_start = [libc::SIGINT, libc::SIGTERM].into_iter().chain(hangup.is_some().then_some(libc::SIGHUP));
        starting::begin(of_start)?;
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, hangup })
    }

    /// The next that comes. Cancel-safe.
    async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = hangup => Signal::HUP,
        }
    }
}

/// Whether a signal is ignored, as this process was started.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the action is only asked for, and its place is large enough.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: filled by the call, or zeros.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// All that can end a session.
pub struct End {
    signals: Signals,
    deadline: Option<Instant>,
    process: Option<AsyncFd<OwnedFd>>,
    command: Option<Command>,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// By time, signal, or the traced process.
    Plainly,
    /// With the command.
    Command(CommandEnd),
}

impl Ended {
    /// The command's own status, 128 and the signal's number where one killed it, as a shell has it.
    pub fn command_code(self) -> Option<i32> {
        let Self::Command(CommandEnd { status, .. }) = self else { return None };
        Some(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
    }

    /// How many of the command's descendants were still running; `None` where there was no command.
    pub fn left_running(self) -> Option<u32> {
        let Self::Command(end) = self else { return None };
        Some(end.left_running)
    }

    /// That, or success where there was no command.
    pub fn exit_code(self) -> ExitCode {
        let code = self.command_code().unwrap_or(0);
        u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

impl End {
    /// Begins to listen for signals, which end the process until [`End::begin`]; from then on the time runs.
    pub fn new(scope: &Scope, command: Option<Command>) -> Result<Self> {
        Ok(Self { signals: Signals::listen()?, deadline: None, process: scope.pid.map(watch).transpose()?, command })
    }

    /// The start is over: lets the command run and starts the time.
    pub fn begin(&mut self, duration: Option<Duration>) -> Result<()> {
        starting::over();
        self.deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
        self.command.as_ref().map_or(Ok(()), Command::release)
    }

    /// Waits for the end. Cancel-safe.
    pub async fn wait(&mut self) -> Result<Ended> {
        let deadline = self.deadline;
        let got = tokio::select! {
            signal = self.signals.next() => signal,
            () = async { sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => Signal::TERM,
            end = wait_for(self.command.as_mut()) => return Ok(Ended::Command(end?)),
            () = ended(self.process.as_ref()) => return Ok(Ended::Plainly),
        };
        match self.command.as_mut() {
            Some(command) => stop(command, got, &mut self.signals).await.map(Ended::Command),
            None => Ok(Ended::Plainly),
        }
    }
}

/// Ends the command: what reached only pinscope is sent on; a second signal kills.
async fn stop(command: &mut Command, got: Signal, signals: &mut Signals) -> Result<CommandEnd> {
    if let Ok(end) = tokio::time::timeout(GRACE, command.wait()).await {
        return end;
    }
    // It may have ended by now; then waiting says so.
    let _ = command.signal(got);
    tokio::select! {
        end = command.wait() => return end,
        _ = signals.next() => {}
    }
    let _ = command.signal(Signal::KILL);
    command.wait().await
}

async fn wait_for(command: Option<&mut Command>) -> Result<CommandEnd> {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

async fn ended(process: Option<&AsyncFd<OwnedFd>>) {
    match process {
        // A pidfd becomes readable when its process ends; an error here would end the session early, and does not.
        Some(process) if process.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

fn watch(pid: u32) -> Result<AsyncFd<OwnedFd>> {
    if let Some(group) = group(pid).filter(|group| *group != pid) {
        bail!("{pid} is a thread of process {group}: watch that, with --pid {group}");
    }
    let pid = Pid::from_raw(pid.cast_signed()).context("a process id must be above zero")?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .with_context(|| format!("cannot watch process {}", pid.as_raw_nonzero()))?;
    wait::readable(fd).context("cannot watch the process")
}

/// The process of a thread. A thread's number has an entry in /proc as well, which lists do not show.
fn group(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::probe::plan::Filters;

    use super::*;

    #[test]
    fn a_thread_is_told_from_its_process() {
        let process = std::process::id();
        // A test runs in a thread of its own.
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        assert_ne!(thread, process);
        assert_eq!((group(process), group(thread)), (Some(process), Some(process)));
        let said = watch(thread).unwrap_err().to_string();
        assert_eq!(said, format!("{thread} is a thread of process {process}: watch that, with --pid {process}"));
    }

    #[test]
    fn everything_that_ends_a_session_is_named() {
        let plain = Scope { filters: Filters::default(), pid: None, duration: None, command: None };
        assert_eq!(ends(&plain), "Ctrl-C");
        let all = Scope { pid: Some(7), duration: Some(Duration::from_secs(30)), command: Some(Vec::new()), ..plain };
        assert_eq!(ends(&all), "the command's end or the end of process 7 or the end of 30s or Ctrl-C");
    }
}
