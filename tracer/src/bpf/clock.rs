//! The kernel's monotonic clock, which the records' times are of, beside this process's.
//!
//! In a time namespace `CLOCK_MONOTONIC` has an offset that `bpf_ktime_get_ns` has not. The kernel's own answer is right wherever
//! programs can be loaded. `/proc/self/timens_offsets` is not: /proc may be missing or another PID namespace's, and the file is
//! that of the namespace for children, which `unshare` without a fork parts from the process's own.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    BPF_FUNC_KTIME_GET_NS, R0, R1, R6, RAW_TRACEPOINT, call, call_helper, copy, exit, fetch, program_of, shift_right,
    subtract, test_run,
};

/// Readings whose intervals are held against each other: the processor may be taken away within one.
const READINGS: usize = 8;
/// How often one reading is tried: the upper half of the clock changes every 4.3 seconds.
const TRIES: usize = 16;
/// The two clocks are read by different code, which may differ by that much.
const SLACK_NS: i128 = 10_000;
const SECOND_NS: i128 = 1_000_000_000;

/// From this process's `CLOCK_MONOTONIC` to the kernel's: constant, as both stand still while the machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelClock {
    offset_ns: i128,
}

impl KernelClock {
    /// Compares the two clocks.
    ///
    /// # Errors
    /// The kernel refuses to run a program for it.
    pub fn compare() -> io::Result<Self> {
        let instructions = [
            copy(R6, R1),
            call_helper(BPF_FUNC_KTIME_GET_NS),
            fetch(R1, R6, 0),
            subtract(R0, R1),
            fetch(R1, R6, 8),
            shift_right(R0, R1),
            exit(),
        ];
        let program = call(super::bpf_cmd::BPF_PROG_LOAD, &mut program_of(RAW_TRACEPOINT, &instructions, c"GPL"))?;
        let mut bounds = (i128::MIN, i128::MAX);
        for _ in 0..READINGS {
            let (before, kernel, after) = read(program.as_fd())?;
            bounds = (bounds.0.max(kernel - after), bounds.1.min(kernel - before));
        }
        Ok(Self { offset_ns: offset(bounds) })
    }

    /// The kernel's clock now.
    pub fn now(self) -> Duration {
        // It began at 0, whatever a namespace makes of it.
        Duration::from_nanos(u64::try_from(monotonic() + self.offset_ns).unwrap_or_default())
    }
}

/// The likeliest offset within these bounds: whole seconds if there are such, as namespaces have them, above all none.
fn offset((least, most): (i128, i128)) -> i128 {
    let middle = i128::midpoint(least, most);
    let seconds = (middle + SECOND_NS / 2).div_euclid(SECOND_NS) * SECOND_NS;
    if (least - SLACK_NS..=most + SLACK_NS).contains(&seconds) { seconds } else { middle }
}

/// The kernel's clock, between two readings of ours.
fn read(program: BorrowedFd<'_>) -> io::Result<(i128, i128, i128)> {
    let upper = || test_run(program, [0, 32]).map(u64::from);
    for _ in 0..TRIES {
        let above = upper()? << 32;
        let before = monotonic();
        let below = test_run(program, [above, 0])?;
        let after = monotonic();
        if upper()? << 32 == above {
            return Ok((before, i128::from(above | u64::from(below)), after));
        }
    }
    Err(io::Error::other("the kernel's clock runs too fast to be read"))
}

fn monotonic() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * SECOND_NS + i128::from(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_of_whole_seconds_where_it_can_be() {
        assert_eq!(offset((-3_000, 2_000)), 0);
        // Read by different code, a little apart.
        assert_eq!(offset((500, 2_000)), 0);
        let day = 86_400 * SECOND_NS;
        assert_eq!(offset((day - 3_000, day + 2_000)), day);
        assert_eq!(offset((-day - 3_000, -day + 2_000)), -day);
        assert_eq!(offset((250_000_000, 250_000_100)), 250_000_050);
    }
}
