//! What this process itself takes, from its own folder in /proc: readable whatever user it is and whatever else of /proc is
//! hidden from it.

use std::time::Duration;

use procfs::process::{LimitValue, Process};
use rustix::time::{ClockId, clock_gettime};

use crate::sample::SelfUsage;

impl SelfUsage {
    /// Reads it; `None` where /proc is not there.
    pub fn read() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let second = procfs::ticks_per_second() as f64;
        let max_fds = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        });
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / second,
            resident_bytes: stat.rss.saturating_mul(crate::kernel::page_size()),
            virtual_bytes: stat.vsize,
            // Without the one through which the folder is read.
            open_fds: process.fd_count().ok().map(|count| (count as u64).saturating_sub(1)),
            max_fds,
            threads: u64::try_from(stat.num_threads).ok()?,
            started_seconds: booted_seconds() + stat.starttime as f64 / second,
        })
    }
}

/// When the machine booted, seconds since 1970: by the clocks, since /proc/stat may be hidden (`ProcSubset=pid`).
fn booted_seconds() -> f64 {
    let clock = |id| {
        let now = clock_gettime(id);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)).as_secs_f64()
    };
    clock(ClockId::Realtime) - clock(ClockId::Boottime)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn it_is_this_process() {
        let own = SelfUsage::read().expect("/proc");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(own.started_seconds < now + 1.0 && own.started_seconds > now - 3600.0, "{own:?}");
        assert!(own.resident_bytes > 1 << 20 && own.virtual_bytes > own.resident_bytes, "{own:?}");
        assert!(own.threads >= 1 && own.open_fds.is_some_and(|count| count >= 3), "{own:?}");
    }

    #[test]
    fn a_descriptor_more_is_one_more() {
        let open = || SelfUsage::read().and_then(|own| own.open_fds).expect("/proc");
        let before = open();
        let files: Vec<_> = (0..40).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        // Other tests run beside this one.
        assert!(open() >= before + 20, "{before}, then {} with {}", open(), files.len());
    }
}
