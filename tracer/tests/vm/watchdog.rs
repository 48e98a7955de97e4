//! Watchdog that ends a run if a test, or a process that it started, hangs.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Processes that have been started and not yet waited for.
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

/// Time for the test to continue after its children were killed.
const GRACE: Duration = Duration::from_secs(15);

struct Armed {
    test: String,
    deadline: Instant,
    killed: bool,
}

/// Starts the watchdog thread.
pub fn start() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(200));
            look();
        }
    });
}

/// Sets the deadline of `test`.
pub fn arm(test: &str, time: Duration) {
    *ARMED.lock().unwrap() = Some(Armed { test: test.to_owned(), deadline: Instant::now() + time, killed: false });
}

/// Marks the test as ended.
pub fn disarm() {
    *ARMED.lock().unwrap() = None;
}

/// Adds a child that is killed if the test hangs.
pub fn adopt(pid: u32) {
    CHILDREN.lock().unwrap().insert(pid as i32);
}

/// Removes a child that was waited for: its process id may be reused.
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
        println!("    the test did not end after its children were killed");
        println!("test {} ... FAILED", armed.test);
        println!("guest: stopped because a test hangs");
        std::process::exit(1);
    }
    println!("    {}: deadline exceeded; killing its children", armed.test);
    for child in &*CHILDREN.lock().unwrap() {
        // SAFETY: kill(2) touches no memory; the process is our child and has not been waited for.
        unsafe { libc::kill(*child, libc::SIGKILL) };
    }
    armed.killed = true;
    armed.deadline = Instant::now() + GRACE;
}
