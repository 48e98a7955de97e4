//! A process or thread by its number.

use std::fmt;

use serde::{Serialize, Serializer};
use tracer_ebpf::record::{ELSEWHERE, ProcessKey};

/// A process's or thread's number in pinscope's own PID namespace; of a task that is not in it the number that the host's
/// namespace has, and marked so: `host:4242`. Numbers are given again: two processes with the same one are told by when they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    number: u32,
    /// `CLOCK_MONOTONIC` nanoseconds; 0 where it was not asked for.
    began_ns: u64,
}

impl Pid {
    /// The number by which this process's tools know the task; `None` where they do not.
    pub fn here(self) -> Option<u32> {
        (self.number & ELSEWHERE == 0).then_some(self.number)
    }
}

impl From<u32> for Pid {
    fn from(number: u32) -> Self {
        Self { number, began_ns: 0 }
    }
}

impl From<ProcessKey> for Pid {
    fn from(process: ProcessKey) -> Self {
        Self { number: process.pid, began_ns: process.began_ns }
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.here() {
            Some(number) => number.fmt(f),
            None => write!(f, "host:{}", self.number & !ELSEWHERE),
        }
    }
}

/// A number, or a text that names the host's.
impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.here() {
            Some(number) => serializer.serialize_u32(number),
            None => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_the_host_is_marked() {
        let json = |pid| serde_json::to_string(&Pid::from(pid)).expect("JSON");
        assert_eq!((Pid::from(42).to_string(), json(42)), ("42".to_owned(), "42".to_owned()));
        let elsewhere = ELSEWHERE + 42;
        assert_eq!(
            (Pid::from(elsewhere).to_string(), json(elsewhere)),
            ("host:42".to_owned(), "\"host:42\"".to_owned())
        );
    }
}
