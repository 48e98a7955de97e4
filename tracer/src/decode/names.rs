//! Numbers of the kernel in the user's words.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::errno::Errno;
use tracer_ebpf::backing::Kind;

use crate::human;

/// The result of an update that installed some of its buffers and stopped at one.
pub const PARTIAL: &str = "partial";

/// The name of a result: `ok`, or the errno (`EFAULT`); an errno without a name is `errno_NUMBER`.
/// `ret` is a return value, a negative errno on failure.
pub fn result_name(ret: i64) -> String {
    if ret >= 0 {
        return "ok".to_owned();
    }
    let number = ret.unsigned_abs();
    match i32::try_from(number).map(Errno::from_raw) {
        Ok(errno) if errno != Errno::UnknownErrno => format!("{errno:?}"),
        _ => format!("errno_{number}"),
    }
}

/// A command name as the kernel holds it: up to the first zero byte, what is not UTF-8 replaced.
pub fn comm(bytes: &[u8]) -> String {
    human::field(bytes).into_owned()
}

/// The filesystem that a file is found in; where that is not its own, with its own in parentheses: a container's file is
/// `overlay (ext4)`. Of kernel's shmem there is no name: the file is tmpfs'.
pub fn filesystem(kind: Kind, own: Option<String>) -> Option<String> {
    match kind.through() {
        None => own,
        Some(found) => Some(format!("{found} ({})", own.as_deref().unwrap_or("tmpfs"))),
    }
}

/// From the kernel's `CLOCK_MONOTONIC`, without the offset of a time namespace, to wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Wall time less monotonic time in nanoseconds; `None` where it is not known.
    offset_ns: Option<i128>,
}

impl Clock {
    /// `realtime` and `monotonic` are readings of the two clocks taken together.
    pub fn new(realtime: SystemTime, monotonic: Duration) -> Self {
        let since_epoch = realtime.duration_since(UNIX_EPOCH).ok();
        let offset_ns = since_epoch.map(|wall| nanoseconds(wall) - nanoseconds(monotonic));
        Self { offset_ns }
    }

    /// RFC 3339 in UTC with microseconds of a monotonic reading; `None` where it cannot be told.
    pub fn rfc3339(&self, monotonic_ns: u64) -> Option<String> {
        let wall = self.offset_ns? + i128::from(monotonic_ns);
        let since_epoch = Duration::from_nanos(u64::try_from(wall).ok()?);
        let mut text = String::new();
        // A year past 9999 has no such form; the formatter says so by an error.
        write!(text, "{}", humantime::format_rfc3339_micros(UNIX_EPOCH.checked_add(since_epoch)?)).ok()?;
        Some(text)
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::backing::{Class, Rule, Through};

    use super::*;

    #[test]
    fn results_have_the_names_of_errno_h() {
        assert_eq!(result_name(0), "ok");
        assert_eq!(result_name(7), "ok");
        assert_eq!(result_name(-14), "EFAULT");
        assert_eq!(result_name(-95), "EOPNOTSUPP");
        assert_eq!(result_name(-255), "errno_255");
        assert_eq!(result_name(-512), "errno_512");
        assert_eq!(result_name(i64::MIN), "errno_9223372036854775808");
    }

    #[test]
    fn a_file_has_the_name_it_is_found_by_and_its_own() {
        let file = Kind::new(Class::File, true, true).under(Rule::Tracked);
        let found = |kind: Kind, own: Option<&str>| filesystem(kind, own.map(str::to_owned));
        assert_eq!(found(file, Some("ext4")).as_deref(), Some("ext4"));
        assert_eq!(found(file.found_through(Through::Overlay), Some("ext4")).as_deref(), Some("overlay (ext4)"));
        let shmem = Kind::new(Class::Shmem, true, true);
        assert_eq!(found(shmem, None), None);
        assert_eq!(found(shmem.found_through(Through::Overlay), None).as_deref(), Some("overlay (tmpfs)"));
    }

    #[test]
    fn a_command_name_ends_at_its_zero() {
        assert_eq!(comm(b"fio\0junk"), "fio");
        assert_eq!(comm(b"sixteen bytes ok"), "sixteen bytes ok");
        assert_eq!(comm(b"\xff\0"), "\u{fffd}");
        assert_eq!(comm(b""), "");
    }

    #[test]
    fn monotonic_time_becomes_wall_time() {
        let clock = Clock::new(UNIX_EPOCH + Duration::from_secs(1_000_000_000), Duration::from_secs(100));
        assert_eq!(clock.rfc3339(100_000_001_999).as_deref(), Some("2001-09-09T01:46:40.000001Z"));
        assert_eq!(Clock::default().rfc3339(1), None);
    }

    #[test]
    fn a_time_without_a_form_is_unknown() {
        let clock = Clock::new(UNIX_EPOCH + Duration::from_secs(u32::MAX.into()) * 100, Duration::ZERO);
        assert_eq!(clock.rfc3339(0), None);
        assert_eq!(Clock::new(UNIX_EPOCH, Duration::from_secs(5)).rfc3339(0), None);
    }
}
