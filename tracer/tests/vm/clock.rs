//! The tests' own clock and count of faults, to compare pinscope's figures with.

/// Time of a clock in nanoseconds.
pub fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills in.
    let ret = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(ret, 0, "clock_gettime failed");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `CLOCK_MONOTONIC`, the clock of the eBPF side.
pub fn monotonic() -> u64 {
    now(libc::CLOCK_MONOTONIC)
}

/// The wall clock, in pinscope's format.
pub fn wall() -> String {
    humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string()
}

/// Moves the wall clock forward, or back for a negative number.
pub fn step(seconds: i64) -> std::io::Result<()> {
    let now = now(libc::CLOCK_REALTIME);
    let time = libc::timespec { tv_sec: (now / 1_000_000_000) as i64 + seconds, tv_nsec: (now % 1_000_000_000) as i64 };
    // SAFETY: `time` is a valid timespec.
    if unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Minor and major faults of this thread so far.
pub fn faults() -> (u64, u64) {
    // SAFETY: rusage is a plain struct of integers; all zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid and filled in by the call.
    let ret = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    assert_eq!(ret, 0, "getrusage failed");
    (usage.ru_minflt as u64, usage.ru_majflt as u64)
}

/// Id of this thread.
pub fn thread_id() -> u32 {
    // SAFETY: gettid(2) takes no arguments and touches no memory.
    unsafe { libc::gettid() as u32 }
}
