//! Compares a record with the call that it describes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    attempt::Attempt,
    context::Context,
    errno::result_name,
    maps::{Backing, BackingSize, Layout, touched},
    record::{BackingSeen, BufferSeen, Record},
    ring::{Buffer, EMPTY},
};

/// Number of distinct files and backings that a record distinguishes; larger numbers are only flagged.
const FILES: usize = 16;
const BACKINGS: usize = 8;

/// All differences between the record and the call; empty if the record is correct.
///
/// `failed_at` is the index of the buffer that the kernel refused, if the caller knows it.
pub fn compare(context: &Context, attempt: &Attempt, record: &Record, failed_at: Option<usize>) -> Vec<String> {
    let mut check = Check { context, problems: Vec::new() };
    check.process(attempt, record);
    check.ring(attempt, record);
    check.times(attempt, record);
    check.buffers(attempt, record, failed_at);
    let what = format!("{} {:?} -> {}", attempt.operation, requested(attempt), result_name(attempt.answer.ret));
    check.problems.into_iter().map(|problem| format!("{what}: {problem}")).collect()
}

fn requested(attempt: &Attempt) -> Vec<Buffer> {
    attempt.buffers.iter().take(3).map(|(buffer, _)| *buffer).collect()
}

struct Check<'a> {
    context: &'a Context,
    problems: Vec<String>,
}

impl Check<'_> {
    #[expect(clippy::needless_pass_by_value, reason = "the callers compare values that they make on the spot")]
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, seen: T, truth: T) {
        if seen != truth {
            self.problems.push(format!("{what} is {seen:?}, expected {truth:?}"));
        }
    }

    fn holds(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(what());
        }
    }

    fn process(&mut self, attempt: &Attempt, record: &Record) {
        self.equal("operation", record.operation.as_str(), attempt.operation);
        self.equal("result", record.result.clone(), attempt.result());
        self.equal("ret", record.ret, attempt.answer.ret);
        self.equal("pid", record.pid, attempt.pid);
        self.equal("comm", record.comm.as_str(), attempt.comm.as_str());
        self.equal("uid", record.uid, 0);
        if let Some(id) = self.context.cgroup_id {
            self.equal("cgroup_id", record.cgroup_id, Some(id));
        }
        self.holds(record.time.is_some(), || "the wall-clock time is unknown".into());
        if matches!(attempt.operation, "register" | "update") {
            self.equal("requested", record.requested, attempt.requested);
        }
    }

    fn ring(&mut self, attempt: &Attempt, record: &Record) {
        let Some(ring) = &record.ring else {
            self.problems.push("the ring is unknown".into());
            return;
        };
        if let Some(fd) = ring.fd {
            self.equal("ring fd", fd, attempt.ring_fd);
        }
        if let Some(age) = ring.age_ns {
            let youngest = record.start_ns.saturating_sub(attempt.ring_created_ns.1);
            let oldest = record.start_ns.saturating_sub(attempt.ring_created_ns.0);
            self.holds((youngest..=oldest).contains(&age), || {
                format!("ring's age {age} ns is not within {youngest}..={oldest}")
            });
        }
    }

    fn times(&mut self, attempt: &Attempt, record: &Record) {
        let ours = attempt.answer.ended_ns - attempt.answer.started_ns;
        let parts = [record.duration_ns, record.pin_ns, record.rest_ns, record.walk_ns];
        let [Some(duration), Some(pin), Some(rest), Some(walk)] = parts else {
            let plain = matches!(attempt.operation, "unregister" | "clone");
            let known = record.duration_ns.is_some() || !record.degraded.is_empty();
            self.holds(plain || known, || format!("times unknown and not degraded: {parts:?}"));
            return;
        };
        self.equal("pin + rest", pin + rest, duration);
        self.holds(duration + walk <= ours, || {
            format!("duration {duration} and walk {walk} ns are more than our clock's {ours}")
        });
        let (faults, ours) = (record.minor_faults, attempt.faults.0);
        self.holds(faults.is_none_or(|count| count <= ours), || format!("{faults:?} faults, more than our {ours}"));
    }

    fn buffers(&mut self, attempt: &Attempt, record: &Record, failed_at: Option<usize>) {
        let seen: Vec<&BufferSeen> = record.buffer_list.iter().filter(|buffer| !is_empty_slot(buffer)).collect();
        self.equal("buffers in the list", Some(record.buffer_list.len() as u64), record.buffers.or(Some(0)));
        let truth: Vec<_> = attempt.buffers.iter().filter(|(buffer, _)| *buffer != EMPTY).collect();
        let whole = attempt.answer.ret >= 0 && failed_at.is_none();
        if whole {
            self.equal("buffers with an address", seen.len(), truth.len());
        }
        if let Some(index) = failed_at {
            let reached = index..=index + 1;
            self.holds(reached.contains(&seen.len()), || format!("{} buffers seen, {reached:?} reached", seen.len()));
        }
        self.holds(seen.len() <= truth.len(), || format!("{} buffers, only {} were given", seen.len(), truth.len()));
        self.refused(attempt, record, failed_at);
        let pairs: Vec<_> = seen.into_iter().zip(truth).collect();
        for (place, (buffer, (asked, layout))) in pairs.iter().enumerate() {
            self.buffer(place, buffer, *asked, layout);
            let failed = failed_at == Some(place)
                || (failed_at.is_none() && attempt.answer.ret < 0 && attempt.buffers.len() == 1);
            self.verdict(place, buffer, failed, attempt.answer.ret);
            // A refused register releases all of its buffers; an update stops at the refused buffer and keeps those
            // before it.
            let stays = attempt.answer.ret >= 0 && !failed;
            self.equal(&format!("buffer {place}: registered"), buffer.registered, Some(stays));
        }
        self.sums(record);
        if pairs.iter().all(|(buffer, _)| matches!(buffer.walk.as_str(), "complete" | "hole")) {
            let layouts: Vec<&Layout> = pairs.iter().map(|(_, (_, layout))| layout).collect();
            self.totals(record, &layouts);
        }
    }

    /// Checks where the kernel stopped, and why. Some kernels check a buffer's size before they call the per-buffer
    /// function.
    fn refused(&mut self, attempt: &Attempt, record: &Record, failed_at: Option<usize>) {
        let told = record.refused.as_ref().map(|refused| refused.index);
        let reached = record.buffer_list.iter().any(|buffer| buffer.ret.is_some_and(|ret| ret < 0));
        if attempt.result() == "partial" {
            self.equal("the refused buffer", told, failed_at.map(|index| index as u64));
        } else if reached {
            self.equal("the refused buffer", told, Some(failed_at.unwrap_or(0) as u64));
        } else {
            self.equal("the refused buffer", told, None);
        }
        if let (Some(refused), true) = (&record.refused, attempt.answer.ret < 0) {
            self.equal("its result", refused.result.as_deref(), Some(result_name(attempt.answer.ret).as_str()));
        }
    }

    /// Checks a buffer's own result. The call's result is that of the refused buffer, except for a partial update.
    fn verdict(&mut self, place: usize, seen: &BufferSeen, refused: bool, answer: i64) {
        let Some(ret) = seen.ret else {
            self.problems.push(format!("buffer {place}: its return was not seen"));
            return;
        };
        let right = match refused {
            false => ret == 0,
            true if answer < 0 => ret == answer,
            true => ret < 0,
        };
        self.holds(right, || format!("buffer {place}: ret {ret}, refused {refused}, the call's {answer}"));
        self.equal(&format!("buffer {place}: result"), seen.result.as_deref(), Some(result_name(ret).as_str()));
    }

    fn buffer(&mut self, place: usize, seen: &BufferSeen, asked: Buffer, layout: &Layout) {
        let at = |what: &str| format!("buffer {place}: {what}");
        self.equal(&at("address"), seen.address(), Some(asked.address));
        self.equal(&at("length"), seen.length, asked.length);
        match seen.walk.as_str() {
            "none" => {
                self.equal(&at("VMAs though not walked"), seen.vmas, None);
                let may = asked.length == 0
                    || asked.address == 0
                    || never_pinned(seen)
                    || !self.context.kernel.can_be_walked();
                self.holds(may && seen.backings.is_empty(), || at("was not walked"));
            }
            "busy" => {
                self.context.busy.set(self.context.busy.get() + 1);
                let bound = seen.vmas.unwrap_or(0);
                self.holds(bound <= layout.vmas, || at(&format!("VMAs at least {bound}, expected {}", layout.vmas)));
            }
            walk => {
                self.equal(&at("walk"), walk, if layout.hole { "hole" } else { "complete" });
                self.equal(&at("VMAs"), seen.vmas, Some(layout.vmas));
                self.files(&at("files"), seen.files, seen.files_capped, layout.files.len());
                self.files(&at("vm_files"), seen.vm_files, seen.vm_files_capped, layout.vm_files.len());
                self.backings(&at("backings"), &seen.backings, &layout.backings);
            }
        }
        if let (Some(duration), Some(pin), Some(rest)) = (seen.duration_ns, seen.pin_ns, seen.rest_ns) {
            self.equal(&at("pin + rest"), pin + rest, duration);
        }
        let folio = seen.folio_size.is_none_or(|size| size.is_power_of_two() && size >= 4096);
        self.holds(folio, || at(&format!("folio size {:?}", seen.folio_size)));
        self.holds(seen.bvecs != Some(0), || at("0 bvecs stands for unknown"));
    }

    fn files(&mut self, what: &str, seen: Option<u64>, capped: bool, truth: usize) {
        if truth > FILES {
            self.holds(capped, || format!("{what}: {truth}, but not flagged as capped at {FILES}"));
        } else {
            self.equal(what, (seen, capped), (Some(truth as u64), false));
        }
    }

    fn backings(&mut self, what: &str, seen: &[BackingSeen], truth: &BTreeMap<Backing, BackingSize>) {
        let seen: BTreeMap<Backing, BackingSize> = seen.iter().map(BackingSeen::pair).collect();
        if truth.len() > BACKINGS {
            // Listed backings are complete; the record states that others are missing (`degraded`).
            let listed = seen.iter().all(|(backing, size)| truth.get(backing) == Some(size));
            self.holds(seen.len() == BACKINGS && listed, || format!("{what}: {seen:?}, expected {truth:?}"));
        } else {
            self.equal(what, &seen, truth);
        }
    }

    /// The registration's figures are the sums over its buffers.
    fn sums(&mut self, record: &Record) {
        let buffers = &record.buffer_list;
        let failed = buffers.iter().filter(|buffer| buffer.ret.is_some_and(|ret| ret < 0)).count() as u64;
        if !buffers.is_empty() {
            self.equal("failed buffers", record.failed_buffers, Some(failed));
            self.equal("bytes", record.bytes, Some(buffers.iter().map(|buffer| buffer.length).sum()));
            let stay = buffers.iter().filter(|buffer| buffer.registered == Some(true));
            self.equal("bytes registered", record.bytes_registered, Some(stay.map(|buffer| buffer.length).sum()));
        }
        let whole = buffers.iter().all(|buffer| {
            !has_range(buffer) || never_pinned(buffer) || buffer.walk == "complete" || buffer.walk == "hole"
        });
        let any = buffers.iter().any(|buffer| buffer.vmas.is_some());
        if any {
            self.equal("vmas_complete", record.vmas_complete, whole);
        }
        let part = |of: fn(&BufferSeen) -> Option<u64>| buffers.iter().filter_map(of).sum::<u64>();
        let within = |whole: Option<u64>, parts: u64| whole.is_none_or(|whole| parts <= whole);
        let (duration, pin) = (part(|buffer| buffer.duration_ns), part(|buffer| buffer.pin_ns));
        self.holds(within(record.duration_ns, duration), || {
            format!("buffers took {duration} ns, all {:?}", record.duration_ns)
        });
        self.holds(within(record.pin_ns, pin), || format!("buffers' pins took {pin} ns, all {:?}", record.pin_ns));
        if record.minor_faults.is_some() {
            self.equal("minor faults", record.minor_faults, Some(part(|buffer| buffer.minor_faults)));
        }
        if record.major_faults.is_some() {
            self.equal("major faults", record.major_faults, Some(part(|buffer| buffer.major_faults)));
        }
        if record.walk_ns.is_some() {
            self.equal("walk", record.walk_ns, Some(part(|buffer| buffer.walk_ns)));
        }
        if record.lookups.is_some() {
            self.equal("lookups", record.lookups, Some(part(|buffer| buffer.lookups)));
        }
    }

    fn totals(&mut self, record: &Record, layouts: &[&Layout]) {
        if layouts.is_empty() {
            return;
        }
        let (seen, truth) = (record.vmas.unwrap_or(0), touched(layouts.iter().copied()));
        let right = seen == truth || record.vmas_repeated && seen > truth;
        self.holds(right, || format!("{seen} VMAs, expected {truth}"));
        let files: BTreeSet<_> = layouts.iter().flat_map(|layout| &layout.files).collect();
        self.files("files of the registration", record.files, record.files_capped, files.len());
        let files: BTreeSet<_> = layouts.iter().flat_map(|layout| &layout.vm_files).collect();
        self.files("vm_files of the registration", record.vm_files, record.vm_files_capped, files.len());
        let mut backings: BTreeMap<Backing, BackingSize> = BTreeMap::new();
        for (backing, size) in layouts.iter().flat_map(|layout| &layout.backings) {
            let sum = backings.entry(backing.clone()).or_default();
            sum.vmas += size.vmas;
            sum.bytes += size.bytes;
        }
        let capped = layouts.iter().any(|layout| layout.backings.len() > BACKINGS);
        if !capped {
            let seen: BTreeMap<Backing, BackingSize> = record.backings.iter().map(BackingSeen::pair).collect();
            self.equal("backings of the registration", &seen, &backings);
        }
    }
}

/// Whether the buffer was refused for its size, without a look at its memory.
fn never_pinned(buffer: &BufferSeen) -> bool {
    buffer.ret.is_some_and(|ret| ret < 0) && buffer.pin_ns.is_none()
}

/// Whether the buffer has a range to walk.
fn has_range(buffer: &BufferSeen) -> bool {
    buffer.length != 0 && buffer.address().is_some_and(|at| at != 0 && at.checked_add(buffer.length).is_some())
}

fn is_empty_slot(buffer: &BufferSeen) -> bool {
    buffer.length == 0 && buffer.address() == Some(0)
}
