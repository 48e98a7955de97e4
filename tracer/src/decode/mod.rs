//! Bytes of the ring buffer to records, and records to whole registrations.
//!
//! [`decode`] reads one record from any bytes without ever panicking; [`Assembler`] puts the buffers of a
//! registration beside it and says [`Registration`] in the user's terms.

mod assemble;
mod capabilities;
mod names;
pub mod pid;
mod record_coverage;
mod registration;
pub mod workload;

use std::mem::{offset_of, size_of};

use tracer_ebpf::{
    backing::{BackingSlice, Kind},
    operation::Operation,
    policy::Traits,
    record::{BACKING_SLICES, BufferRecord, Header, KIND_BUFFER, KIND_REGISTRATION, RegistrationRecord, Walk},
};

pub use assemble::{Assembler, Counts, Filesystems};
pub use capabilities::Capabilities;
pub use names::{Clock, PARTIAL, comm, filesystem, result_name};
pub use pid::Pid;
pub use registration::{Backing, Buffer, Refused, Registration, Ring};

/// One record, its numbers checked against the enums they stand for.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A registration, as it ended.
    Registration(Operation, Box<RegistrationRecord>),
    /// A buffer of one; it comes before its registration.
    Buffer(Walk, Box<BufferRecord>),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("a record of {0} bytes is shorter than a header")]
    Short(usize),
    /// The kind in the header is none of ours.
    #[error("a record of the unknown kind {0}")]
    Kind(u32),
    /// The size is not that of the kind.
    #[error("a record of kind {kind} has {got} bytes, not {want}")]
    Size {
        /// [`Header::kind`].
        kind: u32,
        /// Bytes that the kind has.
        want: usize,
        /// Bytes that there were.
        got: usize,
    },
    /// The number of the operation is none of ours.
    #[error("a record of the unknown operation {0}")]
    Operation(u8),
    /// The number of the walk's outcome is none of ours.
    #[error("a record of the unknown walk {0}")]
    Walk(u8),
    /// The word that tells a backing has no class.
    #[error("a record with the unknown backing {0:#x}")]
    Backing(u32),
}

/// Reads one record. `bytes` is what the ring buffer gave, native byte order, laid out as the `repr(C)`
/// structs of [`tracer_ebpf::record`]; never panics, whatever they are.
pub fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
    let header = header(bytes).ok_or(Malformed::Short(bytes.len()))?;
    match header.kind {
        KIND_REGISTRATION => {
            let record = whole(bytes, header, size_of::<RegistrationRecord>(), registration)?;
            let operation = Operation::from_number(record.operation).ok_or(Malformed::Operation(record.operation))?;
            Ok(Record::Registration(operation, Box::new(record)))
        }
        KIND_BUFFER => {
            let record = whole(bytes, header, size_of::<BufferRecord>(), buffer)?;
            let walk = Walk::from_number(record.walk).ok_or(Malformed::Walk(record.walk))?;
            check_backings(&record.backings)?;
            Ok(Record::Buffer(walk, Box::new(record)))
        }
        kind => Err(Malformed::Kind(kind)),
    }
}

/// Reads the rest of a record whose size must be `want`.
fn whole<T>(
    bytes: &[u8],
    header: Header,
    want: usize,
    read: impl Fn(&[u8], Header) -> Option<T>,
) -> Result<T, Malformed> {
    let wrong = Malformed::Size { kind: header.kind, want, got: bytes.len() };
    if bytes.len() != want {
        return Err(wrong);
    }
    read(bytes, header).ok_or(wrong)
}

fn check_backings(slices: &[BackingSlice]) -> Result<(), Malformed> {
    match slices.iter().find(|slice| slice.vmas > 0 && slice.kind.class().is_none()) {
        Some(slice) => Err(Malformed::Backing(slice.kind.0)),
        None => Ok(()),
    }
}

/// A type that can be read from its bytes, whatever they are.
trait Plain: Sized {
    fn read(bytes: &[u8], offset: usize) -> Option<Self>;
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        impl Plain for $number {
            fn read(bytes: &[u8], offset: usize) -> Option<Self> {
                let field = bytes.get(offset..)?.first_chunk()?;
                Some(Self::from_ne_bytes(*field))
            }
        }
    )*};
}

plain!(u8, u32, u64, i32, i64);

impl<const N: usize> Plain for [u8; N] {
    fn read(bytes: &[u8], offset: usize) -> Option<Self> {
        bytes.get(offset..)?.first_chunk().copied()
    }
}

/// Reads a struct field by field at the offsets that the compiler gives them: no cast, and a field that
/// moves or changes its type is followed or refused at compile time.
macro_rules! fields {
    ($bytes:expr, $type:ident { $($field:ident),* $(,)? } $($set:ident : $value:expr),*) => {
        $type {
            $($field: Plain::read($bytes, offset_of!($type, $field))?,)*
            $($set: $value,)*
        }
    };
}

fn header(bytes: &[u8]) -> Option<Header> {
    Some(fields!(bytes, Header { kind, tid, start_ns }))
}

fn registration(bytes: &[u8], header: Header) -> Option<RegistrationRecord> {
    Some(fields!(bytes, RegistrationRecord {
        duration_ns, pin_ns, walk_ns, ring, ring_created_ns, bytes, registered, refused, vmas, lookups, minor_faults,
        major_faults, cgroup, ret, pid, uid, flags, buffers, requested, failed_buffers, vm_files, files, ring_fd,
        ring_flags, operation, reserved, comm, lock_wait_ns, call_ns, wait_ns, fault_ns, lookup_ns, accounting_ns, lock_reads,
        lock_writes,
    } header: header))
}

fn buffer(bytes: &[u8], header: Header) -> Option<BufferRecord> {
    let backings = backings(bytes.get(offset_of!(BufferRecord, backings)..)?)?;
    let traits = Traits(Plain::read(bytes, offset_of!(BufferRecord, traits))?);
    Some(fields!(bytes, BufferRecord {
        address, length, duration_ns, pin_ns, walk_ns, minor_faults, major_faults, index, vmas, lookups,
        vm_files, files, ret, bvecs, folio_shift, flags, walk, reserved,
    } header: header, traits: traits, backings: backings))
}

fn backings(bytes: &[u8]) -> Option<[BackingSlice; BACKING_SLICES]> {
    let mut slices = [BackingSlice::default(); BACKING_SLICES];
    for (slice, bytes) in slices.iter_mut().zip(bytes.chunks_exact(size_of::<BackingSlice>())) {
        let kind = Kind(Plain::read(bytes, offset_of!(BackingSlice, kind))?);
        let told: BackingSlice = fields!(bytes, BackingSlice { filesystem, bytes, vmas } kind: kind);
        // What lies behind the first unused one is of buffers before.
        if told.vmas == 0 {
            break;
        }
        *slice = told;
    }
    Some(slices)
}

#[cfg(test)]
pub(crate) mod tests;
