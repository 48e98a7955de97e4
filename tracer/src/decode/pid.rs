//! A process or thread by its number.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
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

    /// When the process began, `CLOCK_MONOTONIC` nanoseconds; `None` where that was not asked for, or is not known.
    pub fn began_ns(self) -> Option<u64> {
        (self.began_ns != 0).then_some(self.began_ns)
    }

    /// Whether another process has, or had, the same number.
    pub const fn is_alike(self, other: Self) -> bool {
        self.number == other.number && self.began_ns != other.began_ns
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

impl<'de> Deserialize<'de> for Pid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Here(u32),
            Host(String),
        }
        let number = match Written::deserialize(deserializer)? {
            Written::Here(number) => number,
            Written::Host(text) => {
                let number = text.strip_prefix("host:").and_then(|number| number.parse::<u32>().ok());
                number.ok_or_else(|| D::Error::custom(format!("no process: {text}")))? | ELSEWHERE
            }
        };
        Ok(Self::from(number))
    }
}

impl JsonSchema for Pid {
    fn schema_name() -> Cow<'static, str> {
        "Pid".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A process's or thread's number in pinscope's PID namespace; `host:NUMBER` of one that is not in it.",
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^host:[0-9]+$"}],
        })
    }
}

/// As a figure of a process has it: which process, whatever its number is given to later.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// Thread group.
    pid: Pid,
    /// When the process began, `CLOCK_MONOTONIC` nanoseconds: with `pid` it names the process. Null where that is not known.
    process_began_ns: Option<u64>,
}

/// The same where processes may not be kept apart.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct MaybeNamed {
    /// Thread group; null where processes are not kept apart.
    pid: Option<Pid>,
    /// When the process began, `CLOCK_MONOTONIC` nanoseconds: with `pid` it names the process. Null where that is not known.
    process_began_ns: Option<u64>,
}

impl Pid {
    fn that_began(self, ns: Option<u64>) -> Self {
        Self { began_ns: ns.unwrap_or(0), ..self }
    }
}

/// A process written as [`Named`].
pub mod one {
    use super::{Deserialize, Deserializer, Named, Pid, Serialize, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(pid: &Pid, serializer: S) -> Result<S::Ok, S::Error> {
        Named { pid: *pid, process_began_ns: pid.began_ns() }.serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pid, D::Error> {
        let Named { pid, process_began_ns } = Named::deserialize(deserializer)?;
        Ok(pid.that_began(process_began_ns))
    }
}

/// One written as [`MaybeNamed`].
pub mod maybe {
    use super::{Deserialize, Deserializer, MaybeNamed, Pid, Serialize, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(pid: &Option<Pid>, serializer: S) -> Result<S::Ok, S::Error> {
        MaybeNamed { pid: *pid, process_began_ns: pid.and_then(Pid::began_ns) }.serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pid>, D::Error> {
        let MaybeNamed { pid, process_began_ns } = MaybeNamed::deserialize(deserializer)?;
        Ok(pid.map(|pid| pid.that_began(process_began_ns)))
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
