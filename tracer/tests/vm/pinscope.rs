//! Runs the real binary as a user would: with arguments, signals, output and exit code.

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::watchdog;

/// Path of the binary under test: `$PINSCOPE`, or its place in the guest.
pub fn binary() -> PathBuf {
    std::env::var_os("PINSCOPE").map_or_else(|| PathBuf::from("/bin/pinscope"), PathBuf::from)
}

/// A command with these arguments for pinscope.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    piped(command.args(arguments));
    command
}

/// Captures both outputs and closes the input.
pub fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Output of a program and its exit status.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Exit code in a shell's convention: 128 + n if signal n killed the program.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Fails for any other exit code; the error contains the output.
    pub fn expect_code(self, code: i32) -> anyhow::Result<Self> {
        if self.code() != code {
            bail!("exit code {} instead of {code}\n{}", self.code(), self.words());
        }
        Ok(self)
    }

    /// Fails unless the program ended with an error of exactly one line that contains all of these words.
    pub fn expect_error_line(&self, words: &[&str]) -> anyhow::Result<()> {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [line] = lines.as_slice() else {
            bail!("{} lines on standard error instead of one\n{}", lines.len(), self.words());
        };
        if self.code() == 0 {
            bail!("exit code 0 with an error\n{}", self.words());
        }
        if line.contains("panicked") || line.contains("backtrace") {
            bail!("a panic\n{}", self.words());
        }
        let lower = line.to_lowercase();
        for word in words {
            if !lower.contains(&word.to_lowercase()) {
                bail!("the error does not mention {word:?}: {line}");
            }
        }
        Ok(())
    }

    /// Output for the text of a failure, of standard output the last 2,000 characters.
    pub fn words(&self) -> String {
        let skip = self.stdout.chars().count().saturating_sub(2000);
        let tail: String = self.stdout.chars().skip(skip).collect();
        format!("{}\nstderr: {}\nstdout: {tail}", self.status, self.stderr.trim_end())
    }
}

/// A running program.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<()>>,
    out: Arc<Mutex<Vec<u8>>>,
    stderr: Option<JoinHandle<()>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// Starts the program. Its outputs are collected only if both are piped.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        watchdog::adopt(child.id());
        Ok(Self::adopt(child))
    }

    /// Takes over a process started elsewhere, with the outputs it still has.
    pub fn adopt(mut child: Child) -> Self {
        let (out, err) = (Arc::default(), Arc::default());
        let stdout = child.stdout.take().map(|stream| collect(stream, &out));
        let stderr = child.stderr.take().map(|stream| collect(stream, &err));
        Self { child, stdout, out, stderr, err }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Standard output from byte `offset` on.
    pub fn stdout_from(&self, offset: usize) -> Vec<u8> {
        self.out.lock().unwrap()[offset..].to_vec()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) touches no memory; the child has not been waited for, so its id is still valid.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for the end. After `time`, kills the program and returns an error that contains its output.
    pub fn finish(mut self, time: Duration) -> anyhow::Result<Finished> {
        let deadline = Instant::now() + time;
        let mut late = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline && !late {
                late = true;
                self.signal(libc::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        };
        watchdog::forget(self.child.id());
        for reader in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            reader.join().map_err(|_| anyhow::anyhow!("the reader of an output panicked"))?;
        }
        let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
        let finished = Finished { status, stdout: text(&self.out), stderr: text(&self.err) };
        if late {
            bail!("still running after {} s, and killed\n{}", time.as_secs_f64(), finished.words());
        }
        Ok(finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(libc::SIGKILL);
            let _ = self.child.wait();
        }
        watchdog::forget(self.child.id());
    }
}

/// Runs pinscope until it ends.
pub fn run(arguments: &[&str], time: Duration) -> anyhow::Result<Finished> {
    Running::start(&mut command(arguments))?.finish(time)
}

/// Collects the data of a stream as it arrives.
fn collect(mut stream: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            into.lock().unwrap().extend_from_slice(&chunk[..count]);
        }
    })
}
