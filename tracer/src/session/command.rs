//! A command that is traced from its first instruction.
//!
//! pinscope starts itself with `__exec` as the command's *supervisor*. That process waits for a byte from pinscope, which comes
//! when the probes are attached; then it starts the command. It is a subreaper: orphans of the command's descendants come back
//! to it, so that who descends from the command is who descends from this process, and nobody else's child does. If
//! pinscope ends before, the supervisor does too, and the command never begins.

use std::{
    ffi::OsString,
    io::{ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, RawFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::ExitStatus,
};

use anyhow::{Context, Result, anyhow, bail};
use caps::CapSet;
use nix::sys::{
    signal::{self, SigSet, SigmaskHow, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, FdFlags},
    process::{Pid, Resource, Signal, setrlimit},
};

use crate::{limits, say};

/// What pinscope tells the supervisor first; every other number is a signal for the command.
const BEGIN: u8 = 0;

/// The raw status of a command that could not be started: exit code 1.
const NOT_STARTED: i32 = 1 << 8;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its own status.
    pub status: ExitStatus,
    /// Its descendants that were still running, at the least.
    pub left_running: u32,
}

impl CommandEnd {
    const BYTES: usize = 2 * size_of::<u32>();

    fn of(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, left @ ..] = bytes;
        let status = ExitStatus::from_raw(i32::from_ne_bytes([a, b, c, d]));
        Self { status, left_running: u32::from_ne_bytes(left) }
    }

    fn bytes(raw_status: i32, left_running: u32) -> Vec<u8> {
        [raw_status.to_ne_bytes(), left_running.to_ne_bytes()].concat()
    }
}

/// A command that has not begun, or is running.
pub struct Command {
    supervisor: tokio::process::Child,
    control: tokio::net::UnixStream,
    /// Once the supervisor has told it.
    end: Option<CommandEnd>,
    shown: String,
}

impl Command {
    /// Starts the supervisor, which waits.
    pub fn hold(argv: &[OsString]) -> Result<Self> {
        let shown = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (ours, theirs) = UnixStream::pair().context("cannot make the command's control socket")?;
        let control = theirs.as_raw_fd();
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.args(["__exec", "--control", &control.to_string(), "--"]).args(argv);
        let given = limits::given();
        // SAFETY: between fork and exec it makes system calls only, on a descriptor of its own.
        unsafe {
            command.pre_exec(move || {
                if let Some(given) = &given {
                    setrlimit(Resource::Nofile, *given)?;
                }
                let control = std::os::fd::BorrowedFd::borrow_raw(control);
                Ok(rustix::io::fcntl_setfd(control, FdFlags::empty())?)
            });
        }
        let supervisor = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("cannot start a process for the command: /proc is not mounted"),
            _ => anyhow!(error).context("cannot start a process for the command, from /proc/self/exe"),
        })?;
        ours.set_nonblocking(true)?;
        let control = tokio::net::UnixStream::from_std(ours).context("cannot watch the command")?;
        Ok(Self { supervisor, control, end: None, shown })
    }

    /// The supervisor's process id, from which all descend that belong to the command.
    pub fn ancestor(&self) -> Result<u32> {
        self.supervisor.id().context("the process for the command has ended")
    }

    /// Lets the command begin.
    pub fn release(&self) -> Result<()> {
        self.tell(BEGIN).with_context(|| format!("cannot let {} run", self.shown))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.tell(u8::try_from(signal.as_raw())?)
    }

    /// A byte fits into the socket's buffer as long as the supervisor is there. Past the runtime, which would first want to hear
    /// that it does.
    fn tell(&self, byte: u8) -> Result<()> {
        rustix::io::write(&self.control, &[byte]).map(drop).context("its process has ended")
    }

    /// Waits for its end. Cancel-safe: the word comes in one piece, and is kept while the supervisor ends.
    pub async fn wait(&mut self) -> Result<CommandEnd> {
        let end = match self.end {
            Some(end) => end,
            None => *self.end.insert(self.told().await?),
        };
        // It has no more to do.
        let _ = self.supervisor.wait().await;
        Ok(end)
    }

    /// What the supervisor says.
    async fn told(&self) -> Result<CommandEnd> {
        let mut raw = [0; CommandEnd::BYTES];
        loop {
            self.control.readable().await.with_context(|| format!("cannot wait for {}", self.shown))?;
            match self.control.try_read(&mut raw) {
                Ok(count) if count == raw.len() => return Ok(CommandEnd::of(raw)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => bail!("the process that waited for {} has ended", self.shown),
            }
        }
    }
}

/// A session that ends early (an error, a closed pipe) takes its command with it. One that has ended has nobody to tell.
impl Drop for Command {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
    }
}

/// Runs as the supervisor: waits for the byte that begins, starts the command, and sends its status back. What can fail comes
/// before the command does: one that runs is waited for, whatever the limits are.
pub fn supervise(control: RawFd, argv: &[OsString]) -> Result<()> {
    // SAFETY: pinscope left this descriptor open for this process, and nothing else here knows it.
    let mut control = unsafe { UnixStream::from_raw_fd(control) };
    rustix::io::fcntl_setfd(&control, FdFlags::CLOEXEC).context("cannot keep the control socket from the command")?;
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the parent of the command's orphans")?;
    // A terminal's signals reach the command by themselves, and pinscope, which decides.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).context("cannot block signals")?;
    let children = SignalFd::with_flags(&SigSet::from(signal::SIGCHLD), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot listen for the command's end")?;
    let mut byte = [0];
    // An end of file, too, says that pinscope has gone.
    if control.read(&mut byte).ok() != Some(1) || byte != [BEGIN] {
        return Ok(());
    }
    // What pinscope may do to attach its probes the command need not.
    let _ = caps::clear(None, CapSet::Ambient);
    let [name, arguments @ ..] = argv else { bail!("no command was given") };
    let mut command = std::process::Command::new(name);
    // SAFETY: between fork and exec it makes one system call.
    unsafe {
        command.pre_exec(|| Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?));
    }
    let status = match command.args(arguments).spawn() {
        Ok(child) => run(child.id(), &mut control, &children)?,
        Err(error) => {
            say::line(format_args!("pinscope: cannot run {}: {error}", name.to_string_lossy()));
            Some(NOT_STARTED)
        }
    };
    if let Some(status) = status {
        // If pinscope has gone, nobody asks.
        let _ = control.write_all(&CommandEnd::bytes(status, left_running()));
    }
    Ok(())
}

/// How many of the command's descendants have not ended. Its orphans are this process's children by now.
fn left_running() -> u32 {
    loop {
        let mut status = 0;
        // SAFETY: the place is an int.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            // No child at all.
            ..0 => return 0,
            // Some, none of which has ended.
            0 => break,
            _ => {}
        }
    }
    // Where /proc is not of this namespace, or not there, it is one at the least.
    descendants(std::process::id(), &parents()).max(1)
}

/// The living processes with their parents.
fn parents() -> Vec<(u32, u32)> {
    let of = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read(entry.path().join("stat")).ok()?;
        // The name, in brackets, may hold anything.
        let rest = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
        let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
        let lives = !matches!(fields.next()?, "Z" | "X");
        lives.then_some((pid, fields.next()?.parse().ok()?))
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

/// How many descend from that process.
fn descendants(ancestor: u32, parents: &[(u32, u32)]) -> u32 {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != ancestor).map(|(pid, _)| *pid));
        next += 1;
    }
    u32::try_from(found.len() - 1).unwrap_or(u32::MAX)
}

/// Waits for the command, its orphans taken on the way, and passes pinscope's signals on; gives its raw status. `None` where
/// pinscope has gone: the command goes on alone.
fn run(id: u32, control: &mut UnixStream, children: &SignalFd) -> Result<Option<i32>> {
    let command = Pid::from_raw(id.cast_signed()).context("the command has no process id")?;
    loop {
        // Before what else is to be said to it: as long as it is not waited for, its number is its own.
        if let Some(status) = ended(command)? {
            return Ok(Some(status));
        }
        let mut awaited = [PollFd::new(children, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        match poll(&mut awaited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the command"),
        }
        if !awaited[0].revents().is_empty() {
            // One stands for all that have ended since.
            let _ = children.read_signal();
        }
        if !awaited[1].revents().is_empty() {
            let mut byte = [0];
            if control.read(&mut byte).ok() != Some(1) {
                return Ok(None);
            }
            if let Some(signal) = Signal::from_named_raw(i32::from(byte[0])) {
                // It may be ending.
                let _ = rustix::process::kill_process(command, signal);
            }
        }
    }
}

/// Takes all children that have ended; the raw status of the command, if it is among them.
fn ended(command: Pid) -> Result<Option<i32>> {
    loop {
        let mut status = 0;
        // SAFETY: the place is an int.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 => return Ok(None),
            -1 => return Err(std::io::Error::last_os_error()).context("cannot wait for the command"),
            pid if pid == command.as_raw_nonzero().get() => return Ok(Some(status)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Stdio, time::Duration};

    use super::*;

    #[test]
    fn a_command_begins_before_the_runtime_had_a_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let supervisor = tokio::process::Command::new("true").spawn().unwrap();
            let control = tokio::net::UnixStream::from_std(ours).unwrap();
            let command = Command { supervisor, control, end: None, shown: "it".to_owned() };
            command.release().unwrap();
            let mut byte = [1];
            theirs.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [BEGIN]);
        });
    }

    /// As a trace does, whose records come while the supervisor is ending.
    #[test]
    fn a_status_outlives_a_wait_that_was_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.write_all(&CommandEnd::bytes(3 << 8, 2)).unwrap();
            // It lives as long as its standard input.
            let mut supervisor = tokio::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let input = supervisor.stdin.take();
            let control = tokio::net::UnixStream::from_std(ours).unwrap();
            let mut command = Command { supervisor, control, end: None, shown: "it".to_owned() };
            assert!(tokio::time::timeout(Duration::from_millis(100), command.wait()).await.is_err());
            drop((theirs, input));
            let end = command.wait().await.unwrap();
            assert_eq!((end.status.code(), end.left_running), (Some(3), 2));
        });
    }

    #[test]
    fn descendants_are_children_and_theirs() {
        let parents = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 12), (20, 1), (21, 20)];
        assert_eq!((descendants(10, &parents), descendants(13, &parents)), (3, 0));
    }
}
