//! Ends a run in which a test, or something it started, hangs.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// What has been started and not yet waited for.
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

/// How long the killing of the children may take to wake the test.
const GRACE: Duration = Duration::from_secs(15);

struct Armed {
    test: String,
    deadline: Instant,
    killed: bool,
}

/// Starts the thread that watches.
pub fn start() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(200));
            look();
        }
    });
}

/// From now on `test` has so much time.
pub fn arm(test: &str, time: Duration) {
    *ARMED.lock().unwrap() = Some(Armed { test: test.to_owned(), deadline: Instant::now() + time, killed: false });
}

/// The test ended.
pub fn disarm() {
    *ARMED.lock().unwrap() = None;
}

/// A child to be killed with the test that hangs on it.
pub fn adopt(pid: u32) {
    CHILDREN.lock().unwrap().insert(pid as i32);
}

/// The child was waited for: its number may be somebody else's now.
pub fn forget(pid: u32) {
    CHILDREN.lock().unwrap().remove(&(pid as i32));
}

fn look() {
    let mut armed = ARMED.lock().unwrap();
    let Some(armed) = armed.as_mut() else { return };
    if Instant::now() < armed.deadline {
        return;
    }
    if armed.killed {
        println!("    the test did not end when what it had started was killed");
        println!("test {} ... FAILED", armed.test);
        println!("guest: stopped at a test that hangs");
        std::process::exit(1);
    }
    println!("    {}: its time is up; killing what it started", armed.test);
    for child in &*CHILDREN.lock().unwrap() {
        // SAFETY: kill(2) touches no memory; the process is a child of ours that was not waited for yet.
        unsafe { libc::kill(*child, libc::SIGKILL) };
    }
    armed.killed = true;
    armed.deadline = Instant::now() + GRACE;
}
