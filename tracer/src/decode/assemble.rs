//! Buffers wait for their registration's record, which comes last.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
};

use tracer_ebpf::{
    operation::Operation,
    record::{BufferRecord, Header, RegistrationRecord, Walk, flag},
};

use super::{Capabilities, Clock, Record, Registration, decode, registration::Context};

/// Buffer records that may wait: eight registrations of the most buffers that a ring takes (16,384).
const WAITING: usize = 8 * 16_384;

/// Rings whose number is remembered.
const RINGS: usize = 65_536;

/// Names of filesystems, by the address of their `file_system_type`.
pub trait Filesystems {
    /// `None` where it is not known, and for 0, which stands for none.
    fn name(&self, address: u64) -> Option<String>;
}

impl<S: BuildHasher> Filesystems for HashMap<u64, String, S> {
    fn name(&self, address: u64) -> Option<String> {
        self.get(&address).cloned()
    }
}

/// What became of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registrations put together.
    pub registrations: u64,
    /// Bytes that were no record.
    pub malformed: u64,
    /// Buffer records whose registration's record never came.
    pub orphans: u64,
}

/// Puts the records of the ring buffer together to registrations.
///
/// A task has one registration at a time, and its records come in order, so that buffers wait by thread:
/// a buffer of a later registration shows that the earlier one's record was lost. What waits is bounded;
/// whom it hits is dropped oldest first and counted in [`Counts::orphans`].
#[derive(Debug)]
pub struct Assembler {
    capabilities: Capabilities,
    clock: Clock,
    rings: Rings,
    waiting: HashMap<u32, Group>,
    /// Threads in the order in which they began to wait; one may be gone from `waiting` or there anew.
    order: VecDeque<(u32, u64)>,
    held: usize,
    limit: usize,
    counts: Counts,
}

#[derive(Debug)]
struct Group {
    start_ns: u64,
    buffers: Vec<(Walk, BufferRecord)>,
}

impl Assembler {
    /// `known` says what the attached probes can tell, `clock` how to say a monotonic time.
    pub fn new(capabilities: Capabilities, clock: Clock) -> Self {
        Self::with_limit(capabilities, clock, WAITING)
    }

    pub(super) fn with_limit(capabilities: Capabilities, clock: Clock, limit: usize) -> Self {
        Self {
            capabilities,
            clock,
            rings: Rings::default(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            held: 0,
            limit,
            counts: Counts::default(),
        }
    }

    /// How to say the monotonic times of the records that come next.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Takes one record's bytes; gives the registration that it completes.
    pub fn push(&mut self, bytes: &[u8], filesystems: &dyn Filesystems) -> Option<Registration> {
        match decode(bytes) {
            Ok(Record::Buffer(walk, record)) => {
                self.wait(walk, &record);
                None
            }
            Ok(Record::Registration(operation, record)) => Some(self.complete(operation, &record, filesystems)),
            Err(why) => {
                self.counts.malformed += 1;
                tracing::debug!("{why}");
                None
            }
        }
    }

    /// What became of the records so far. Buffers that still wait are in none of the figures.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Ends the session: what still waits will never be completed.
    pub fn finish(mut self) -> Counts {
        self.counts.orphans += self.held as u64;
        self.counts
    }

    fn wait(&mut self, walk: Walk, record: &BufferRecord) {
        let Header { tid, start_ns, .. } = record.header;
        if self.waiting.get(&tid).is_some_and(|group| group.start_ns != start_ns) {
            self.drop_group(tid);
        }
        let group = self.waiting.entry(tid).or_insert_with(|| {
            self.order.push_back((tid, start_ns));
            Group { start_ns, buffers: Vec::new() }
        });
        group.buffers.push((walk, *record));
        self.held += 1;
        while self.held > self.limit && self.drop_oldest() {}
    }

    fn complete(
        &mut self,
        operation: Operation,
        record: &RegistrationRecord,
        filesystems: &dyn Filesystems,
    ) -> Registration {
        let Header { tid, start_ns, .. } = record.header;
        let buffers = self.take(tid, start_ns);
        let ring = self.rings.number(record);
        let context = Context { capabilities: &self.capabilities, clock: self.clock, filesystems };
        self.counts.registrations += 1;
        Registration::new(&context, operation, record, ring, &buffers)
    }

    /// The buffers of this registration; those of an earlier one of the thread are orphans.
    fn take(&mut self, tid: u32, start_ns: u64) -> Vec<(Walk, BufferRecord)> {
        if self.waiting.get(&tid).is_some_and(|group| group.start_ns != start_ns) {
            self.drop_group(tid);
        }
        let buffers = self.waiting.remove(&tid).map(|group| group.buffers).unwrap_or_default();
        self.held -= buffers.len();
        if self.order.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.order.retain(|(tid, start)| waiting.get(tid).is_some_and(|group| group.start_ns == *start));
        }
        buffers
    }

    fn drop_group(&mut self, tid: u32) {
        if let Some(group) = self.waiting.remove(&tid) {
            self.held -= group.buffers.len();
            self.counts.orphans += group.buffers.len() as u64;
        }
    }

    /// Drops the group that has waited longest; false where none is left.
    fn drop_oldest(&mut self) -> bool {
        while let Some((tid, start_ns)) = self.order.pop_front() {
            if self.waiting.get(&tid).is_some_and(|group| group.start_ns == start_ns) {
                self.drop_group(tid);
                return true;
            }
        }
        false
    }
}

/// Small numbers for rings, so that no kernel address is shown.
///
/// A ring is known by its address and when it was made: the kernel gives an address out again.
#[derive(Debug, Default)]
struct Rings {
    numbers: HashMap<(u64, u64), u64>,
    order: VecDeque<(u64, u64)>,
    last: u64,
}

impl Rings {
    /// The number of the record's ring, from 1; `None` where the record names none.
    fn number(&mut self, record: &RegistrationRecord) -> Option<u64> {
        if record.ring == 0 {
            return None;
        }
        let made = if record.flags & flag::RING_KNOWN == 0 { 0 } else { record.ring_created_ns };
        let key = (record.ring, made);
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        if self.numbers.len() >= RINGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        self.last += 1;
        self.numbers.insert(key, self.last);
        self.order.push_back(key);
        Some(self.last)
    }
}
