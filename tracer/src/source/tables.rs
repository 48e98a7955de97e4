//! The tables of buffers that rings have now: which there are, and what is in them.
//!
//! The map `TABLES` says which rings have a table; its contents are the kernel's own, read by a program that pinscope runs
//! itself. A table is read when it is first seen, and again after each change. None is read under the ring's lock.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use aya::{
    Ebpf,
    programs::{Program, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use tracer_ebpf::table::{Followed, Listed, Range, SLOTS_AT_ONCE, Table, listed};

use crate::{
    bpf::{self, Pass, entries::Entries, mapped::Mapped, read::ReadError},
    probe::table::{LIST_TABLE, SEARCHES},
    sample::registered,
};

/// A slot that no table has: nothing is listed.
const BEHIND_ALL: u64 = u64::MAX;

/// How often a part of a table is read anew that changed while it was read.
const TRIES: usize = 4;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct TablePod(Table);

// SAFETY: `repr(C)` over integers, with no padding, for which every bit pattern is a value.
unsafe impl aya::Pod for TablePod {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct ListedPod(Listed);

// SAFETY: as above.
unsafe impl aya::Pod for ListedPod {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct FollowedPod(Followed);

// SAFETY: as above.
unsafe impl aya::Pod for FollowedPod {}

/// Puts the rings into the map that had a table before the hooks were there. They are attached by now, so that none is
/// missed in between. By the programs that are loaded; the plan says what others would find.
///
/// # Errors
/// The kernel refuses; what was there before is not known then.
pub fn search(ebpf: &mut Ebpf, loaded: impl Fn(&str) -> bool) -> Result<(), String> {
    searching(ebpf, true)?;
    let found = SEARCHES.iter().filter(|search| loaded(search.program)).try_for_each(|search| {
        let program = ebpf.program(search.program).ok_or_else(|| format!("there is no program {}", search.program))?;
        let fd = program.fd().map_err(|error| error.to_string())?;
        run(fd.as_fd()).map_err(|error| format!("{}: {error}", search.target))
    });
    searching(ebpf, false)?;
    found
}

/// While it is set, a table that goes leaves a mark, so that an iterator that saw it before does not put it back.
fn searching(ebpf: &Ebpf, on: bool) -> Result<(), String> {
    Mapped::writable(ebpf, "SEARCHING").map_err(|error| error.to_string())?.set(u64::from(on));
    Ok(())
}

/// Runs an iterator to its end. The library makes iterators too, of programs that it may change.
fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    let link = bpf::link_iterator(program, None)?;
    let mut pass = Pass::begin(link.as_fd())?;
    // The programs write nothing: there is nothing to read but the end.
    let mut nothing = [0; 64];
    while pass.read(&mut nothing)? > 0 {}
    Ok(())
}

/// What is registered, from one reading to the next.
pub struct Source {
    tables: Entries<u64, TablePod>,
    followed: Mapped,
    listed: Mapped,
    /// By ring.
    known: HashMap<u64, Read>,
    /// Ends of tables that no hook saw, as of the last reading.
    skipped: Option<u64>,
}

/// What a reading found besides the tables.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Some table is not as it was at the last reading.
    pub changed: bool,
    /// Tables that found no room.
    pub lost: u64,
}

/// What was read of one ring.
struct Read {
    /// What the map had.
    of: Table,
    /// What is in the table; `None` where it could not be read.
    buffers: Option<Arc<[Range]>>,
}

impl Source {
    /// Of the maps of the loaded object.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn start(ebpf: &Ebpf, iterator: u32) -> Result<Self, ReadError> {
        let tables = Entries::of(ebpf, iterator, "TABLES")?;
        let (followed, listed) = (Mapped::readable(ebpf, "FOLLOWED")?, Mapped::readable(ebpf, "LISTED")?);
        Ok(Self { tables, followed, listed, known: HashMap::new(), skipped: None })
    }

    /// Reads what is registered now; [`Self::tables`] has it. `skipped` counts the ends of tables that no hook saw, where the kernel tells.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self, ebpf: &Ebpf, skipped: Option<u64>) -> Result<Found, ReadError> {
        let tables = self.noted()?;
        let before = self.known.len();
        let reader = Reader::of(ebpf, &self.listed)?;
        let lost = self.followed()?.lost;
        // A table whose end was missed stays as it is in the map: only a look into the kernel's memory tells.
        let missed = skipped.is_none() || skipped != self.skipped;
        self.skipped = skipped;
        let as_it_was = |ring: &u64, read: &mut Read| {
            read.buffers.is_some()
                && tables.get(ring).is_some_and(|table| *table == read.of)
                && (!missed || reader.is_there(*ring))
        };
        self.known.retain(as_it_was);
        if self.known.len() == before && self.known.len() == tables.len() {
            return Ok(Found { changed: false, lost });
        }
        for (ring, of) in tables {
            if self.known.contains_key(&ring) {
                continue;
            }
            match reader.table(ring)? {
                Content::Whole(buffers) => {
                    self.known.insert(ring, Read { of, buffers: Some(buffers.into()) });
                }
                Content::Unknown => {
                    self.known.insert(ring, Read { of, buffers: None });
                }
                Content::Gone => {}
            }
        }
        Ok(Found { changed: true, lost })
    }

    /// The tables as of the last reading.
    pub fn tables(&self) -> impl Iterator<Item = registered::Table<'_>> {
        self.known.values().map(|read| registered::Table {
            mm: read.of.mm,
            cgroup: read.of.cgroup,
            buffers: read.buffers.as_deref(),
        })
    }
}

impl Source {
    /// What the map has. An entry that goes while it is read may hide one beside it: then it is read again. Where entries go all the
    /// time, what any reading saw is taken.
    fn noted(&self) -> Result<HashMap<u64, Table>, ReadError> {
        let mut all = HashMap::new();
        for _ in 0..TRIES {
            let before = self.followed()?;
            let read: HashMap<_, _> = self.tables.read(|ring, table| (ring, table.0))?.into_iter().collect();
            if before.removing == before.removed && self.followed()?.removing == before.removing {
                all = read;
                break;
            }
            all.extend(read);
        }
        all.retain(|_, table| table.gone == 0);
        Ok(all)
    }

    fn followed(&self) -> Result<Followed, ReadError> {
        Ok(self.followed.get::<FollowedPod>(0).ok_or(ReadError::Missing("FOLLOWED"))?.0)
    }
}

/// What is in a table.
enum Content {
    Whole(Vec<Range>),
    Gone,
    Unknown,
}

/// Reads tables.
struct Reader<'a> {
    program: &'a RawTracePoint,
    listed: &'a Mapped,
}

impl<'a> Reader<'a> {
    fn of(ebpf: &'a Ebpf, listed: &'a Mapped) -> Result<Self, ReadError> {
        let Some(Program::RawTracePoint(program)) = ebpf.program(LIST_TABLE) else {
            return Err(ReadError::Missing(LIST_TABLE));
        };
        Ok(Self { program, listed })
    }

    /// Whether the kernel still has this table; where it does not, the program takes it out of the map.
    fn is_there(&self, ring: u64) -> bool {
        self.run(ring, BEHIND_ALL).is_ok_and(|said| said != listed::GONE)
    }

    /// What the program says of a part that begins at this slot.
    fn run(&self, ring: u64, first: u64) -> Result<u32, ReadError> {
        let mut options = RawTracePointRunOptions::new();
        options.args[..2].copy_from_slice(&[ring, first]);
        let result = self.program.test_run(options);
        Ok(result.map_err(|error| ReadError::Run(LIST_TABLE, error.to_string()))?.return_value)
    }

    fn table(&self, ring: u64) -> Result<Content, ReadError> {
        let (mut all, mut first) = (Vec::new(), 0);
        loop {
            let part = match self.part(ring, first)? {
                (listed::WHOLE, Some(part)) => part,
                (listed::GONE, _) => return Ok(Content::Gone),
                _ => return Ok(Content::Unknown),
            };
            let buffers = usize::try_from(part.buffers).unwrap_or(SLOTS_AT_ONCE).min(SLOTS_AT_ONCE);
            all.extend_from_slice(&part.ranges[..buffers]);
            first += SLOTS_AT_ONCE as u64;
            if first >= part.slots {
                return Ok(Content::Whole(all));
            }
        }
    }

    /// A part, and what the program said of it.
    fn part(&self, ring: u64, first: u64) -> Result<(u32, Option<Box<Listed>>), ReadError> {
        let mut said = listed::CHANGED;
        for _ in 0..TRIES {
            said = self.run(ring, first)?;
            if said != listed::CHANGED {
                break;
            }
        }
        if said != listed::WHOLE {
            return Ok((said, None));
        }
        let part = self.listed.get::<ListedPod>(0).ok_or(ReadError::Missing("LISTED"))?;
        Ok((said, Some(Box::new(part.0))))
    }
}
