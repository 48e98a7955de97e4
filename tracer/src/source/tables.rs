//! The tables of buffers that rings have now: which there are, and what is in them.
//!
//! The map `TABLES` says which rings have a table; its contents are the kernel's own, read by a program that pinscope runs
//! itself. A table is read when it is first seen, and again after each change. None is read under the ring's lock.
//!
//! Anybody may have rings, and clone a table into thousands of them for nothing. So one reading has a bound ([`SLOTS`]), and so
//! has what is kept ([`RANGES`]): what finds no time is read in turns by the next ones.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    programs::{Program, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use tracer_ebpf::table::{Followed, Listed, Range, SLOTS_AT_ONCE, Table, listed};

use super::waiting::Waiting;
use crate::{
    bpf::{self, Pass, entries::Entries, mapped::Mapped, read::ReadError},
    probe::table::{LIST_TABLE, SEARCHES},
    sample::registered::{self, Content},
};

/// A slot that no table has: nothing is listed.
const BEHIND_ALL: u64 = u64::MAX;

/// Slots that one reading looks at; the table that begins below this number is read whole.
const SLOTS: u64 = 131_072;

/// What a run of the program counts for besides its slots.
const RUN: u64 = 16;

/// Ranges of pages that are kept of all tables together.
const RANGES: usize = 262_144;

/// Millions of open files, and of tasks, that the search looks at: anybody may have many.
const FOUND: u32 = 16;

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
    let mut pass = Pass::begin(link.as_fd())?.at_most(FOUND);
    // The programs write nothing: there is nothing to read but the end.
    let mut nothing = [0; 64];
    loop {
        match pass.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other(format!("there are more than {FOUND} million")));
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is registered, from one reading to the next.
pub struct Source {
    tables: Entries<u64, TablePod>,
    followed: Mapped,
    listed: Mapped,
    contents: Contents,
    /// Ends of tables that no hook saw, as of the last reading.
    skipped: Option<u64>,
    /// The tables as of the last reading.
    now: HashMap<u64, Table>,
}

/// What a reading found besides the tables.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Some table is not as it was at the last reading.
    pub changed: bool,
    /// Tables that found no room.
    pub lost: u64,
}

/// What is in the tables, as far as it was read.
#[derive(Default)]
struct Contents {
    /// By ring.
    known: HashMap<u64, Read>,
    /// Rings whose table is to be read.
    waiting: Waiting,
}

/// What was read of one ring.
struct Read {
    /// What the map had.
    of: Table,
    content: Content,
}

impl Source {
    /// Of the maps of the loaded object.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn start(ebpf: &Ebpf, iterator: u32) -> Result<Self, ReadError> {
        let tables = Entries::of(ebpf, iterator, "TABLES")?;
        let (followed, listed) = (Mapped::readable(ebpf, "FOLLOWED")?, Mapped::readable(ebpf, "LISTED")?);
        Ok(Self { tables, followed, listed, contents: Contents::default(), skipped: None, now: HashMap::new() })
    }

    /// Reads what is registered now; [`Self::tables`] has it. `skipped` counts the ends of tables that no hook saw, where the
    /// kernel tells.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self, ebpf: &Ebpf, skipped: Option<u64>) -> Result<Found, ReadError> {
        let mut tables = self.noted()?;
        let reader = Reader::of(ebpf, &self.listed)?;
        let lost = self.followed()?.lost;
        // A table whose end was missed stays as it is in the map: only a look into the kernel's memory tells.
        let missed = skipped.is_none() || skipped != self.skipped;
        self.skipped = skipped;
        let Contents { known, .. } = &mut self.contents;
        if missed {
            tables.retain(|ring, _| !known.contains_key(ring) || reader.is_there(*ring));
        }
        let before = known.len();
        known.retain(|ring, read| tables.get(ring).is_some_and(|table| *table == read.of));
        let went = known.len() < before;
        self.contents.wait(&tables);
        let read = self.contents.read_waiting(&reader, &mut tables)?;
        let changed = went || read || tables != self.now;
        self.now = tables;
        Ok(Found { changed, lost })
    }

    /// The tables as of the last reading.
    pub fn tables(&self) -> impl Iterator<Item = registered::Table<'_>> {
        let Contents { known, waiting } = &self.contents;
        self.now.iter().map(|(ring, of)| {
            let content = known.get(ring).map(|read| &read.content);
            registered::Table {
                mm: of.mm,
                cgroup: of.cgroup,
                others: of.others != 0,
                waits: content.is_none() && waiting.has(*ring),
                content,
            }
        })
    }
}

impl Contents {
    /// What is to be read: tables that are not known, and those whose pages would find room again.
    fn wait(&mut self, tables: &HashMap<u64, Table>) {
        let mut room = RANGES.saturating_sub(kept(&self.known));
        self.waiting.retain(|ring| tables.contains_key(&ring));
        for (ring, of) in tables {
            match self.known.get(ring).map(|read| &read.content) {
                None => self.waiting.add(owner(of), *ring),
                Some(content) if content.pages.is_none() && content.ranges <= room => {
                    room -= content.ranges;
                    self.waiting.add(owner(of), *ring);
                }
                Some(_) => {}
            }
        }
    }

    /// Reads what waits until this reading has done enough; takes what is gone out of `tables`. Whether there was anything.
    fn read_waiting(&mut self, reader: &Reader<'_>, tables: &mut HashMap<u64, Table>) -> Result<bool, ReadError> {
        let (mut work, mut any) = (0, false);
        while work < SLOTS
            && let Some(ring) = self.waiting.next()
        {
            let Some(of) = tables.get(&ring) else { continue };
            any = true;
            match reader.table(ring, &mut work)? {
                Listing::Whole(buffers) => {
                    self.known.insert(ring, Read { of: *of, content: Content::of(&buffers) });
                }
                Listing::Unknown => {
                    self.known.remove(&ring);
                }
                Listing::Gone => {
                    self.known.remove(&ring);
                    tables.remove(&ring);
                }
            }
        }
        shed(&mut self.known, RANGES);
        Ok(any)
    }
}

/// In whose name a table waits: the cgroup of whoever made it, or where that is not told its memory.
const fn owner(table: &Table) -> u64 {
    if table.cgroup == 0 { table.mm } else { table.cgroup }
}

/// Ranges of pages that are kept.
fn kept(known: &HashMap<u64, Read>) -> usize {
    known.values().filter(|read| read.content.pages.is_some()).map(|read| read.content.ranges).sum()
}

/// Lets go of pages beyond `most` ranges, of the memory first that has most of them.
fn shed(known: &mut HashMap<u64, Read>, most: usize) {
    let mut all = kept(known);
    if all <= most {
        return;
    }
    let mut by_memory: HashMap<u64, (usize, Vec<u64>)> = HashMap::new();
    for (ring, read) in known.iter().filter(|(_, read)| read.content.pages.is_some()) {
        let (ranges, rings) = by_memory.entry(read.of.mm).or_default();
        *ranges += read.content.ranges;
        rings.push(*ring);
    }
    let mut by_memory: Vec<_> = by_memory.into_values().collect();
    by_memory.sort_unstable_by_key(|(ranges, _)| Reverse(*ranges));
    for ring in by_memory.into_iter().flat_map(|(_, rings)| rings) {
        if all <= most {
            break;
        }
        if let Some(read) = known.get_mut(&ring) {
            all -= read.content.ranges;
            read.content.pages = None;
        }
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

/// What became of the listing of a table.
enum Listing {
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

    /// Lists a table, and adds to `work` what that took.
    fn table(&self, ring: u64, work: &mut u64) -> Result<Listing, ReadError> {
        let (mut all, mut first) = (Vec::new(), 0);
        loop {
            let part = match self.part(ring, first, work)? {
                (listed::WHOLE, Some(part)) => part,
                (listed::GONE, _) => return Ok(Listing::Gone),
                _ => return Ok(Listing::Unknown),
            };
            let buffers = usize::try_from(part.buffers).unwrap_or(SLOTS_AT_ONCE).min(SLOTS_AT_ONCE);
            all.extend_from_slice(&part.ranges[..buffers]);
            first += SLOTS_AT_ONCE as u64;
            if first >= part.slots {
                return Ok(Listing::Whole(all));
            }
        }
    }

    /// A part, and what the program said of it.
    fn part(&self, ring: u64, first: u64, work: &mut u64) -> Result<(u32, Option<Box<Listed>>), ReadError> {
        let mut said = listed::CHANGED;
        for _ in 0..TRIES {
            said = self.run(ring, first)?;
            *work += RUN;
            if said != listed::CHANGED {
                break;
            }
            // As many as it may have looked at.
            *work += SLOTS_AT_ONCE as u64;
        }
        if said != listed::WHOLE {
            return Ok((said, None));
        }
        let part = self.listed.get::<ListedPod>(0).ok_or(ReadError::Missing("LISTED"))?;
        *work += part.0.slots.saturating_sub(first).min(SLOTS_AT_ONCE as u64);
        Ok((said, Some(Box::new(part.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_largest_memory_pages_are_let_go_first() {
        let table = |mm, ranges: usize| {
            let pages = vec![Range::default(); ranges].into();
            Read {
                of: Table { mm, ..Table::default() },
                content: Content { pages: Some(pages), ranges, ..Content::default() },
            }
        };
        let mut known: HashMap<_, _> = (0..100).map(|ring| (ring, table(1, 10))).collect();
        known.insert(100, table(2, 300));
        shed(&mut known, 2000);
        assert_eq!(kept(&known), 1300);
        shed(&mut known, 750);
        assert_eq!(kept(&known), 750);
        assert!(known[&100].content.pages.is_some());
    }
}
