//! The one table of rules. Each has its thresholds as constants, and says the figures that support it.

use std::collections::BTreeSet;

use tracer_ebpf::policy::{Policy, Traits};

use super::{Case, Rule, Said};
use crate::{
    aggregate::{Habits, Judged},
    answer::{
        Threshold,
        evidence::{errno_name, share, sum},
        rules::running,
    },
    human, kernel,
};

/// Every rule.
pub(super) const RULES: &[Rule] = &[
    Rule { name: "faulted_in", thresholds: FAULTED_IN, applies: faulted_in },
    Rule { name: "small_pages", thresholds: SMALL_PAGES, applies: small_pages },
    Rule { name: "adjacent_iovecs", thresholds: ADJACENT_IOVECS, applies: adjacent_iovecs },
    Rule { name: "registered_again", thresholds: REGISTERED_AGAIN, applies: registered_again },
    Rule { name: "registered_elsewhere", thresholds: REGISTERED_ELSEWHERE, applies: registered_elsewhere },
    Rule { name: "memlock", thresholds: MEMLOCK, applies: memlock },
    Rule { name: "many_vmas", thresholds: MANY_VMAS, applies: many_vmas },
    Rule { name: "refused_mapping", thresholds: REFUSED_MAPPING, applies: refused_mapping },
];

const fn threshold(name: &'static str, value: f64, unit: &'static str) -> Threshold {
    Threshold { name, value, unit }
}

/// Page faults in the pins, at the least.
const FAULTS: u64 = 64;
/// Faults for each page of the buffers that took any: below it the kernel brought in many pages at once.
const FAULTS_PER_PAGE: f64 = 0.25;
/// Share of the time that the faulting pins take.
const FAULTING_TIME: f64 = 0.2;
const FAULTED_IN: &[Threshold] = &[
    threshold("page faults in the pins, at least", FAULTS as f64, ""),
    threshold("faults for each page of those buffers, at least", FAULTS_PER_PAGE, ""),
    threshold("share of the time, at least", FAULTING_TIME * 100.0, "%"),
];

fn faulted_in(case: &Case<'_>) -> Option<Said> {
    let habits = case.process.habits.as_ref()?;
    let (minor, major) = (habits.minor_faults?, habits.major_faults?);
    let (bytes, pin_ns) = (habits.faulting_bytes?, habits.faulting_pin_ns?);
    let faults = minor.saturating_add(major);
    let by_page = share(faults, bytes / kernel::page_size())?;
    if faults < FAULTS || by_page < FAULTS_PER_PAGE || !case.takes(pin_ns, FAULTING_TIME) {
        return None;
    }
    Some(Said {
        seen: format!(
            "{} ({} with I/O) in pins of {}: the memory was not there yet (or still shared after a fork) and came in page by page.",
            human::plural(faults, "page fault"),
            human::count(major),
            human::bytes(bytes),
        ),
        costs: format!(
            "Those pins took {}, {} of its time in registrations.",
            human::duration(pin_ns),
            case.part_of_time(pin_ns)
        ),
        change: "Write to the memory before registering it: mmap() with MAP_POPULATE, or madvise(MADV_POPULATE_WRITE) (5.14 and later) from as many threads as there are; with huge pages one fault brings in 2 MiB."
            .to_owned(),
        expect: "Pins without faults; the faults themselves move to where the memory is touched, off the registration."
            .to_owned(),
    })
}

/// Bytes in one bvec of the large buffers, on average, at the most.
const BVEC_BYTES: u64 = 64 << 10;
const SMALL_PAGES: &[Threshold] = &[
    threshold("buffers of 2 MiB and more, at least", 1.0, ""),
    threshold("KiB for each bvec of those on average, below", (BVEC_BYTES >> 10) as f64, "KiB"),
];

/// Only where the kernel makes one bvec of a folio: before 6.12 there is one for each page whatever the folio.
fn small_pages(case: &Case<'_>) -> Option<Said> {
    let habits = case.process.habits.as_ref().filter(|_| case.context.coalesces)?;
    let each = habits.large_bytes.checked_div(habits.large_bvecs)?;
    if habits.large_buffers == 0 || each >= BVEC_BYTES {
        return None;
    }
    let huge = habits.large_bytes.div_ceil(2 << 20);
    let pins = case.process.pin_ns.map_or_else(String::new, |ns| {
        format!("All its pins took {}, {} of its time in registrations. ", human::duration(ns), case.part_of_time(ns))
    });
    Some(Said {
        seen: format!(
            "{} of 2 MiB and more, {} together, have {}: {} each.",
            human::plural(habits.large_buffers, "buffer"),
            human::bytes(habits.large_bytes),
            human::plural(habits.large_bvecs, "bvec"),
            human::bytes(each),
        ),
        costs: format!(
            "{pins}Each page of a buffer is pinned by itself, and each I/O goes over the bvecs."
        ),
        change: "Put the buffers on huge pages: mmap() with MAP_HUGETLB, or align them to 2 MiB and madvise(MADV_HUGEPAGE) before they are touched."
            .to_owned(),
        expect: format!(
            "Some {} in place of {}: this kernel makes one bvec of a folio where the whole buffer lies in folios of one size.",
            human::plural(huge, "bvec"),
            human::count(habits.large_bvecs)
        ),
    })
}

/// Buffers that begin where the one before ends, at the least.
const ADJACENT: u64 = 256;
/// Their bytes on average, at the most.
const ADJACENT_BYTES: u64 = 64 << 10;
/// Of all its buffers.
const ADJACENT_SHARE: f64 = 0.5;
const ADJACENT_IOVECS: &[Threshold] = &[
    threshold("buffers that begin where the one before ends, at least", ADJACENT as f64, ""),
    threshold("of its buffers, at least", ADJACENT_SHARE * 100.0, "%"),
    threshold("KiB of each on average, at most", (ADJACENT_BYTES >> 10) as f64, "KiB"),
];

fn adjacent_iovecs(case: &Case<'_>) -> Option<Said> {
    let habits = case.process.habits.as_ref()?;
    let each = habits.adjacent_bytes.checked_div(habits.adjacent_buffers)?;
    let part = share(habits.adjacent_buffers, case.process.buffers?)?;
    if habits.adjacent_buffers < ADJACENT || each > ADJACENT_BYTES || part < ADJACENT_SHARE {
        return None;
    }
    let lists = if habits.long_lists > 0 {
        format!(", in {} of 256 iovecs and more", human::plural(habits.long_lists, "call"))
    } else {
        String::new()
    };
    let duration = case.process.duration_ns?;
    let buffers = case.process.buffers.unwrap_or(0);
    Some(Said {
        seen: format!(
            "{} of {} begin where the one before ends, {} each{lists}.",
            human::count(habits.adjacent_buffers),
            human::plural(buffers, "buffer"),
            human::bytes(each),
        ),
        costs: format!(
            "Its calls took {} for {}: {} for each.",
            human::duration(duration),
            human::plural(buffers, "buffer"),
            human::duration(duration.checked_div(buffers).unwrap_or(0)),
        ),
        change: "Register each run of them as one iovec (up to 1 GiB), and give the address inside it: IORING_OP_READ_FIXED and WRITE_FIXED take any part of a registered buffer."
            .to_owned(),
        expect: "What a registration costs for each iovec, be it ever so small, is paid once for a run.".to_owned(),
    })
}

/// Calls that registered what one of the last four had registered, at the least.
const REPEATED: u64 = 8;
/// Share of the time that those take.
const REPEATED_TIME: f64 = 0.1;
const REGISTERED_AGAIN: &[Threshold] = &[
    threshold("calls with the ranges of one of the four before on the same ring, at least", REPEATED as f64, ""),
    threshold("share of the time, at least", REPEATED_TIME * 100.0, "%"),
];
const REGISTERED_ELSEWHERE: &[Threshold] = &[
    threshold("calls with the ranges of one of the four before on another ring, at least", REPEATED as f64, ""),
    threshold("share of the time, at least", REPEATED_TIME * 100.0, "%"),
];

fn registered_again(case: &Case<'_>) -> Option<Said> {
    let habits = case.process.habits.as_ref()?;
    if habits.repeated < REPEATED || !case.takes(habits.repeated_ns, REPEATED_TIME) {
        return None;
    }
    Some(Said {
        seen: format!(
            "{} of {} registered the very ranges of one of the four calls before, on the same ring.",
            human::count(habits.repeated),
            human::plural(case.process.registrations, "call")
        ),
        costs: format!(
            "Those took {}, {} of its time in registrations.",
            human::duration(habits.repeated_ns),
            case.part_of_time(habits.repeated_ns)
        ),
        change: "Keep the buffers registered for as long as the ring lives.".to_owned(),
        expect: "That time goes but for the first call of each set.".to_owned(),
    })
}

/// Only where there is another way: before 6.12 each ring has to pin them for itself.
fn registered_elsewhere(case: &Case<'_>) -> Option<Said> {
    let habits = case.process.habits.as_ref().filter(|_| case.context.clones)?;
    if habits.elsewhere < REPEATED || !case.takes(habits.elsewhere_ns, REPEATED_TIME) {
        return None;
    }
    Some(Said {
        seen: format!(
            "{} of {} registered the very ranges of one of the four calls before, on another ring.",
            human::count(habits.elsewhere),
            human::plural(case.process.registrations, "call")
        ),
        costs: format!(
            "Those took {}, {} of its time in registrations; each ring pins the pages anew, and charges them to RLIMIT_MEMLOCK anew.",
            human::duration(habits.elsewhere_ns),
            case.part_of_time(habits.elsewhere_ns)
        ),
        change: "Register once, and let the other rings take the buffers over with IORING_REGISTER_CLONE_BUFFERS (io_uring_clone_buffers() of liburing); or keep one ring for all of them."
            .to_owned(),
        expect: "A clone pins nothing: that time goes, and the pages are charged once.".to_owned(),
    })
}

const MEMLOCK: &[Threshold] = &[threshold("calls refused with ENOMEM, at least", 1.0, "")];

fn memlock(case: &Case<'_>) -> Option<Said> {
    let refused = case.process.habits.as_ref()?.enomem.filter(|refused| *refused > 0)?;
    Some(Said {
        seen: format!(
            "{} of {} were refused with ENOMEM: as a rule the limit of locked memory, which registered buffers count against.",
            human::count(refused),
            human::plural(case.process.registrations, "call")
        ),
        costs: "Those buffers are not registered; a program that goes on without them pins at every request.".to_owned(),
        change: "Raise RLIMIT_MEMLOCK: LimitMEMLOCK= in the systemd unit, memlock in limits.conf, or setrlimit(); CAP_IPC_LOCK lifts it. The limit is the user's, over all that user's rings."
            .to_owned(),
        expect: "ENOMEM goes, unless memory itself is short.".to_owned(),
    })
}

/// VMAs of a buffer that has many, from here on (as the kernel side counts them).
const MANY: u64 = 8;
/// Share of the time that the pins of such buffers take.
const MANY_TIME: f64 = 0.1;
const MANY_VMAS: &[Threshold] = &[
    threshold("VMAs in one buffer whose pin looked VMAs up, at least", MANY as f64, ""),
    threshold("share of the time, at least", MANY_TIME * 100.0, "%"),
];

fn many_vmas(case: &Case<'_>) -> Option<Said> {
    let habits: &Habits = case.process.habits.as_ref()?;
    let (buffers, pin_ns) = (habits.many_vma_buffers?, habits.many_vma_pin_ns?);
    let each = habits.many_vmas?.checked_div(buffers)?;
    if !case.takes(pin_ns, MANY_TIME) {
        return None;
    }
    Some(Said {
        seen: format!(
            "{} of {MANY} VMAs and more, {} on average, with {} in their pins.",
            human::plural(buffers, "buffer"),
            human::count(each),
            human::plural(habits.many_vma_lookups?, "VMA look-up"),
        ),
        costs: format!(
            "Their pins took {}, {} of its time in registrations.",
            human::duration(pin_ns),
            case.part_of_time(pin_ns)
        ),
        change: "Make one mapping of it: a single mmap() with one protection, and no mprotect(), madvise() or MAP_FIXED on parts of it, each of which splits the VMA; /proc/PID/maps shows the pieces."
            .to_owned(),
        expect: "One VMA to look up in place of many. Memory that is there before it is registered is pinned without look-ups since 6.10."
            .to_owned(),
    })
}

const REFUSED_MAPPING: &[Threshold] =
    &[threshold("buffers refused by this kernel's rule for mappings, at least", 1.0, "")];

/// What GUP refuses everywhere is a mistake in the program, and no matter of the mapping's kind.
fn refused_mapping(case: &Case<'_>) -> Option<Said> {
    let running = running(case.judgements?)?;
    let by_rule = |judged: &&&Judged| {
        let rule = running.refuses(judged.traits);
        // A length is no matter of the mapping's kind either.
        let length = judged.traits.has(Traits::LARGE);
        !length
            && rule != 0
            && rule == judged.errno
            && running.decides(judged.traits)
            && (judged.traits.has(Traits::DAX) || !judged.traits.has(Traits::UNPINNABLE))
    };
    let hit: Vec<_> = case.judged.iter().filter(by_rule).collect();
    let first = hit.first()?;
    let buffers = sum(&hit, |judged| judged.buffers);
    let kinds: BTreeSet<_> = hit.iter().map(|judged| human::plain(&crate::answer::rules::backing(judged))).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let later = hit.iter().all(|judged| Policy::Since65.refuses(judged.traits) == 0);
    Some(Said {
        seen: format!(
            "Refused: {} on {kinds}, the first with {}; this kernel's rule is that of {}.",
            human::plural(buffers, "buffer"),
            errno_name(first.errno),
            crate::answer::rules::words(running),
        ),
        costs: "Those buffers are not registered; a program that goes on without them pins at every request.".to_owned(),
        change: "Register memory of its own: anonymous memory, memfd_create() or hugetlb, each mapping as a buffer by itself; and read() or write() the file through it (O_DIRECT works on registered buffers)."
            .to_owned(),
        expect: if later {
            "The registration is accepted; kernels from 6.5 on accept it as it is.".to_owned()
        } else {
            "The registration is accepted by every kernel.".to_owned()
        },
    })
}
