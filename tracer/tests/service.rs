//! The daemon and its supervisor: notifications to systemd, reloads, and behaviour where nothing can be traced.
//!
//! The configuration avoids every hook, so nothing can be attached, on any machine and for any user.
#![expect(clippy::unwrap_used, reason = "a panic is the test's failure")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use pinscope::probe::table;

/// List for the configuration of every function and tracepoint that could be hooked.
fn avoided() -> String {
    let wanted = table::wanted();
    let names: Vec<_> = wanted.functions.iter().chain(wanted.tracepoints).map(|name| format!("{name:?}")).collect();
    format!("avoid = [{}]\n", names.join(", "))
}

/// A daemon supervised by the test.
struct Daemon {
    child: Child,
    notifications: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with a configuration that avoids every hook and contains `more`. It listens on the socket `first`.
    fn start(more: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notifications = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notifications.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let config = folder.path().join("pinscope.toml");
        fs::write(&config, format!("{}{more}", configuration(folder.path(), "first"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pinscope"))
            .args(["daemon", "--config"])
            .arg(&config)
            .args(arguments)
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .env_remove("RUST_LOG")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, notifications, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, listen: &str, more: &str) {
        fs::write(self.path("pinscope.toml"), format!("{}{more}", configuration(self.folder.path(), listen))).unwrap();
    }

    /// Notifications up to and including the first that begins with `begin`.
    fn until(&self, begin: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let mut message = [0; 4096];
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            let length = self.notifications.recv(&mut message).unwrap_or_else(|error| panic!("{error}; {seen:?}"));
            let lines = String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect::<Vec<_>>();
            let found = lines.iter().any(|line| line.starts_with(begin));
            seen.extend(lines);
            if found {
                return seen;
            }
        }
        panic!("no {begin} among {seen:?}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn get(&self, socket: &str, path: &str) -> String {
        let mut stream = UnixStream::connect(self.path(socket)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits for the end. Returns the exit status and the log.
    fn finish(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A process that has already ended cannot be killed.
        let _ = self.child.kill();
    }
}

fn configuration(folder: &Path, listen: &str) -> String {
    format!("listen = [\"unix:{}\"]\n{}", folder.join(listen).display(), avoided())
}

#[test]
fn where_nothing_can_be_traced_it_serves_that() {
    let daemon = Daemon::start("", &[]);
    let told = daemon.until("READY=1");
    let status = told.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    assert!(status.starts_with("STATUS=failed: nothing is measured on "), "{told:?}");
    let metrics = daemon.get("first", "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    let value = |name: &str| metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    assert!(value("pinscope_info{").contains("mode=\"none\""));
    assert!(value("pinscope_health{status=\"failed\"}").ends_with(" 1"));
    assert!(!value("pinscope_degraded_reasons ").ends_with(" 0"));
    assert!(!metrics.contains("\npinscope_registrations_total{"), "unknown is no zero");
    assert!(!metrics.contains("\npinscope_attached_seconds "));
    assert!(daemon.get("first", "/-/ready").starts_with("HTTP/1.1 503"));
    daemon.signal("TERM");
    daemon.until("STOPPING=1");
    let (status, log) = daemon.finish();
    assert!(status.success(), "{status}: {log}");
    assert!(log.lines().all(|line| line.contains("WARN") && line.contains("degraded: ")), "{log}");
}

#[test]
fn strict_ends_where_anything_is_missing() {
    let (status, log) = Daemon::start("strict = true\n", &[]).finish();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.starts_with("pinscope: --strict: not all can be measured here: ") && log.lines().count() == 1, "{log}");
    // The command line takes precedence.
    let daemon = Daemon::start("strict = true\n", &["--strict=false"]);
    daemon.until("READY=1");
    daemon.signal("INT");
    assert!(daemon.finish().0.success());
}

#[test]
fn a_file_with_a_mistake_is_one_line_and_not_tried_again() {
    let (status, log) = Daemon::start("ringz = true\n", &[]).finish();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.ends_with("pinscope.toml:3: there is no key ringz; did you mean rings?\n"), "{log}");
}

#[test]
fn the_watchdog_is_fed() {
    let daemon = Daemon::start("", &[]);
    daemon.until("READY=1");
    for _ in 0..5 {
        daemon.until("WATCHDOG=1");
    }
    daemon.signal("TERM");
    assert!(daemon.finish().0.success());
}

#[test]
fn a_reload_follows_what_it_can_and_names_the_rest() {
    let daemon = Daemon::start("", &[]);
    daemon.until("READY=1");

    daemon.configure("second", "locks = true\n");
    daemon.signal("HUP");
    let told = daemon.until("READY=1");
    let place = |line: &str| told.iter().position(|told| told.starts_with(line));
    assert!(place("RELOADING=1") < place("MONOTONIC_USEC=") && place("MONOTONIC_USEC=") < place("READY=1"), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("STATUS=needs a restart for locks; ")), "{told:?}");
    assert!(daemon.get("second", "/metrics").starts_with("HTTP/1.1 200"));
    assert!(UnixStream::connect(daemon.path("first")).is_err());

    daemon.configure("third", "attach = 'magic'\n");
    daemon.signal("HUP");
    let told = daemon.until("READY=1");
    let status = told.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    let said =
        "pinscope.toml:3: attach: magic is none of auto, kprobe.multi, kprobe, fentry; needs a restart for locks";
    assert!(status.contains("the configuration was not read again: ") && status.contains(said), "{status}");
    assert!(daemon.get("second", "/metrics").starts_with("HTTP/1.1 200"), "what was there stays");

    daemon.configure("second", "");
    daemon.signal("HUP");
    let told = daemon.until("READY=1");
    let status = told.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    assert!(status.starts_with("STATUS=failed: nothing is measured"), "all is as at the start: {status}");

    daemon.signal("TERM");
    let (status, log) = daemon.finish();
    assert!(status.success(), "{log}");
    assert!(log.contains("the configuration was not read again") && log.contains("needs a restart: locks"), "{log}");
}
