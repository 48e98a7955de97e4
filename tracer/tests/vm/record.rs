//! Records: lines of `pinscope trace --json`.

use serde::Deserialize;
use serde_json::Value;

use crate::maps::{Backing, BackingSize};

/// Keys that each registration must have, even if the value is null.
const REGISTRATION_KEYS: [&str; 36] = [
    "type",
    "schema",
    "time",
    "start_ns",
    "operation",
    "result",
    "ret",
    "refused",
    "pid",
    "tid",
    "comm",
    "uid",
    "cgroup_id",
    "ring",
    "requested",
    "buffers",
    "failed_buffers",
    "bytes",
    "bytes_registered",
    "vmas",
    "vmas_complete",
    "vmas_repeated",
    "lookups",
    "files",
    "files_capped",
    "vm_files",
    "vm_files_capped",
    "duration_ns",
    "pin_ns",
    "rest_ns",
    "walk_ns",
    "minor_faults",
    "major_faults",
    "backings",
    "degraded",
    "buffer_list",
];
/// Keys that each buffer must have.
const BUFFER_KEYS: [&str; 22] = [
    "index",
    "address",
    "length",
    "result",
    "ret",
    "registered",
    "vmas",
    "walk",
    "lookups",
    "files",
    "files_capped",
    "vm_files",
    "vm_files_capped",
    "duration_ns",
    "pin_ns",
    "rest_ns",
    "walk_ns",
    "minor_faults",
    "major_faults",
    "bvecs",
    "folio_size",
    "backings",
];

/// The ring of a registration.
#[derive(Clone, Debug, Deserialize)]
pub struct RingSeen {
    /// Identifier; not the address, which the output must not reveal.
    pub id: u64,
    /// File descriptor returned at its creation; unknown if the ring is older than the session.
    pub fd: Option<i32>,
    /// Age in nanoseconds.
    pub age_ns: Option<u64>,
}

/// The part of a buffer or registration with one backing.
#[derive(Clone, Debug, Deserialize)]
pub struct BackingSeen {
    class: String,
    filesystem: Option<String>,
    shared: bool,
    writable: bool,
    vmas: u64,
    bytes: u64,
}

impl BackingSeen {
    /// The same in the form derived from /proc/self/maps.
    pub fn pair(&self) -> (Backing, BackingSize) {
        let (class, filesystem) = (self.class.clone(), self.filesystem.clone());
        let backing = Backing { class, filesystem, shared: self.shared, writable: self.writable };
        (backing, BackingSize { vmas: self.vmas, bytes: self.bytes })
    }
}

/// One buffer.
#[derive(Clone, Debug, Deserialize)]
pub struct BufferSeen {
    pub index: u64,
    address: String,
    pub length: u64,
    pub result: Option<String>,
    pub ret: Option<i64>,
    pub registered: Option<bool>,
    pub vmas: Option<u64>,
    pub walk: String,
    pub lookups: Option<u64>,
    pub files: Option<u64>,
    pub files_capped: bool,
    pub vm_files: Option<u64>,
    pub vm_files_capped: bool,
    pub duration_ns: Option<u64>,
    pub pin_ns: Option<u64>,
    pub rest_ns: Option<u64>,
    pub walk_ns: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub bvecs: Option<u64>,
    pub folio_size: Option<u64>,
    pub backings: Vec<BackingSeen>,
}

impl BufferSeen {
    /// Address, a hexadecimal string in JSON.
    pub fn address(&self) -> Option<u64> {
        u64::from_str_radix(self.address.strip_prefix("0x")?, 16).ok()
    }
}

/// The buffer at which the kernel stopped.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RefusedSeen {
    pub index: u64,
    pub result: Option<String>,
}

/// One registration.
#[expect(clippy::struct_excessive_bools, reason = "as in the trace")]
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    pub time: Option<String>,
    pub start_ns: u64,
    pub operation: String,
    pub result: String,
    pub ret: i64,
    pub refused: Option<RefusedSeen>,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub uid: u32,
    pub cgroup_id: Option<u64>,
    pub ring: Option<RingSeen>,
    pub requested: Option<u64>,
    pub buffers: Option<u64>,
    pub failed_buffers: Option<u64>,
    pub bytes: Option<u64>,
    pub bytes_registered: Option<u64>,
    pub vmas: Option<u64>,
    pub vmas_complete: bool,
    pub vmas_repeated: bool,
    pub files: Option<u64>,
    pub files_capped: bool,
    pub vm_files: Option<u64>,
    pub vm_files_capped: bool,
    pub duration_ns: Option<u64>,
    pub pin_ns: Option<u64>,
    pub rest_ns: Option<u64>,
    pub walk_ns: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub lookups: Option<u64>,
    pub backings: Vec<BackingSeen>,
    pub degraded: Vec<Value>,
    pub buffer_list: Vec<BufferSeen>,
}

impl Record {
    /// Reads a registration. The error names a key that is missing or has the wrong type.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        missing(value, &REGISTRATION_KEYS)?;
        for buffer in value["buffer_list"].as_array().into_iter().flatten() {
            missing(buffer, &BUFFER_KEYS)?;
        }
        if value["schema"] != 1 {
            return Err(format!("schema {} instead of 1", value["schema"]));
        }
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())
    }
}

fn missing(value: &Value, keys: &[&str]) -> Result<(), String> {
    match keys.iter().find(|key| value.get(**key).is_none()) {
        None => Ok(()),
        Some(key) => Err(format!("no key {key:?}")),
    }
}
