//! The sections of the report, one function each. A section without figures is left out, or says why.

use super::{
    failures, human,
    page::{Page, bar},
};
use crate::{
    aggregate::{Backing, Distribution, Measured, Process, Snapshot},
    decode::Pid,
    sink::log2_bucket::{Log2Bucket, log2_buckets},
};

/// Processes shown by name; the others are summed.
const PROCESSES: usize = 8;
/// Backings shown by name; the others are summed.
const BACKINGS: usize = 12;
/// Columns that a bar of the histogram may take.
pub(super) const BAR: usize = 40;
const UNSEEN_BUFFERS: &str = "buffers were not seen";
const UNWALKED_BUFFERS: &str = "buffers were not walked to the end";

/// Says under a section's sums that they lack something.
fn bound(page: &mut Page, of: Option<Measured>, what: &str) {
    if let Some(of) = of.filter(|of| of.missed > 0) {
        let all = of.measured.saturating_add(of.missed);
        let (missed, all) = (human::count(of.missed), human::count(all));
        page.line(&format!("  (lower bounds: {missed} of {all} {what})"));
    }
}

pub(super) fn registrations(page: &mut Page, snapshot: &Snapshot) {
    let row = |[label, calls, ok, partial, failed]: [&str; 5]| {
        format!("{label:<14}{calls:>9}{ok:>9}{partial:>9}{failed:>9}   ")
    };
    page.blank();
    page.line(&(row(["REGISTRATIONS", "calls", "ok", "partial", "failed"]) + "why"));
    for operation in snapshot.operations().iter().filter(|operation| operation.total() > 0) {
        let label = format!("  {}", operation.operation.name());
        let figures = [operation.total(), operation.ok, operation.partial, operation.failed];
        let [calls, ok, partial, failed] = figures.map(human::count);
        page.paragraph(&row([&label, &calls, &ok, &partial, &failed]), &failures(operation));
    }
    let uncounted = snapshot.books.figures.uncounted;
    if uncounted > 0 {
        page.line(&format!("  (lower bounds: up to {} more were not counted)", human::count(uncounted)));
    }
}

pub(super) fn vmas(page: &mut Page, snapshot: &Snapshot) {
    let (Some(registration), Some(buffer)) = (&snapshot.registration_vmas, &snapshot.buffer_vmas) else {
        return;
    };
    if registration.count() == 0 && buffer.count() == 0 {
        return;
    }
    page.section("VMAS TOUCHED", &[("count", 9), ("single", 8), ("p50", 9), ("p90", 9), ("p99", 9), ("max", 9)]);
    for (label, vmas) in [("  per registration", registration), ("  per buffer", buffer)] {
        let single = vmas.share_of(1).map_or_else(dash, human::percent);
        let mut cells = vec![(human::count(vmas.count()), 9), (single, 8)];
        cells.extend(quantiles(vmas, human::count));
        page.row(label, &cells);
    }
    bound(page, snapshot.books.figures.walks, UNWALKED_BUFFERS);
    if registration.count() > 0 {
        page.blank();
        page.line(&format!("  {:>15} {:>9}", "VMAs", "count"));
        histogram(page, registration);
    }
}

/// A line for every power of two between the least and the greatest value, the empty ones too.
fn histogram(page: &mut Page, distribution: &Distribution) {
    let log2_buckets = log2_buckets(distribution);
    let most = log2_buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
    for Log2Bucket { first, last, count } in log2_buckets {
        let range = match last - first {
            0 => first.to_string(),
            _ if last < 10_000_000 => format!("{first}-{last}"),
            _ => format!("{}+", human::count(first)),
        };
        let bar = bar(count as f64 / most as f64, BAR);
        page.line(&format!("  {range:>15} {:>9} {bar}", human::count(count)));
    }
}

pub(super) fn durations(page: &mut Page, snapshot: &Snapshot) {
    let mut rows = Vec::new();
    for operation in snapshot.operations() {
        if let Some(duration) = &operation.duration {
            rows.push((format!("  {} ok", operation.operation.name()), &duration.ok));
            rows.push((format!("  {} partial", operation.operation.name()), &duration.partial));
            rows.push((format!("  {} failed", operation.operation.name()), &duration.failed));
        }
    }
    rows.extend(snapshot.pin.as_ref().map(|pin| ("  pin".to_owned(), pin)));
    rows.retain(|(_, distribution)| distribution.count() > 0);
    table(page, "DURATION", &rows, human::duration);
    if !rows.is_empty() {
        bound(page, snapshot.books.figures.calls, "calls were not measured");
        bound(page, snapshot.books.figures.pins, "pins were not seen from end to end");
    }
}

pub(super) fn sizes(page: &mut Page, snapshot: &Snapshot) {
    let (Some(buffers), Some(bytes)) = (&snapshot.registration_buffers, &snapshot.registration_bytes) else {
        return;
    };
    if buffers.count() > 0 {
        table(page, "A REGISTRATION'S", &[("  buffers".to_owned(), buffers)], human::count);
        page.row("  bytes", &cells(bytes, human::bytes));
        bound(page, snapshot.books.figures.buffers, UNSEEN_BUFFERS);
    }
    if let Some(refused) = snapshot.refused_bytes.filter(|bytes| *bytes > 0) {
        page.line(&format!("  asked for and not registered: {}", human::bytes(refused)));
    }
}

/// Rows of count, quantiles, maximum and sum.
pub(super) fn table(page: &mut Page, title: &str, rows: &[(String, &Distribution)], show: fn(u64) -> String) {
    if rows.is_empty() {
        return;
    }
    page.section(title, &[("count", 9), ("p50", 10), ("p90", 10), ("p99", 10), ("max", 10), ("sum", 10)]);
    for (label, distribution) in rows {
        page.row(label, &cells(distribution, show));
    }
}

fn cells(distribution: &Distribution, show: fn(u64) -> String) -> Vec<(String, usize)> {
    let mut cells = vec![(human::count(distribution.count()), 9)];
    cells.extend(quantiles(distribution, show).into_iter().map(|(cell, _)| (cell, 10)));
    cells.push((show(distribution.sum()), 10));
    cells
}

fn quantiles(distribution: &Distribution, show: fn(u64) -> String) -> [(String, usize); 4] {
    let told =
        [distribution.quantile(0.5), distribution.quantile(0.9), distribution.quantile(0.99), distribution.max_bound()];
    told.map(|value| (value.map_or_else(dash, show), 9))
}

pub(super) fn split(page: &mut Page, snapshot: &Snapshot) {
    let Some(split) = snapshot.split.as_ref().filter(|split| split.total_ns > 0) else { return };
    page.blank();
    let bound = if split.complete { "" } else { " (some ends were not seen: the pin's share is a lower bound)" };
    page.line(&format!("WHERE THE TIME WENT{bound}"));
    for (label, part) in [("pin", split.pin_ns), ("the rest", split.rest_ns)] {
        let share = part as f64 / split.total_ns as f64;
        let (time, percent) = (human::duration(part), human::percent(share));
        page.line(&format!("  {label:<10}{time:>10}{percent:>8} {}", bar(share, BAR)));
    }
    let mut facts = Vec::new();
    if let Some(faults) = &snapshot.faults {
        let lack = faults.lack().map(|lack| format!(" ({lack})")).unwrap_or_default();
        let (minor, major) = (human::count(faults.minor), human::count(faults.major));
        facts.push(format!("page faults {minor} minor, {major} major{lack}"));
    }
    if let Some(lookups) = snapshot.lookups {
        facts.push(format!("VMA look-ups by the kernel {}", human::count(lookups)));
    }
    if !facts.is_empty() {
        page.paragraph("  in the pins: ", &facts.join("; "));
    }
}

pub(super) fn backings(page: &mut Page, snapshot: &Snapshot) {
    let Some(backings) = snapshot.backings.as_ref().filter(|backings| !backings.is_empty()) else { return };
    page.section("WHAT LIES BEHIND THE BUFFERS", &[("buffers", 10), ("VMAs", 10), ("bytes", 11)]);
    let mut row = |label: &str, [buffers, vmas, bytes]: [u64; 3]| {
        page.row(label, &[(human::count(buffers), 10), (human::count(vmas), 10), (human::bytes(bytes), 11)]);
    };
    let (shown, others) = backings.split_at(backings.len().min(BACKINGS));
    for backing in shown {
        row(&format!("  {}", describe(backing)), [backing.buffers, backing.vmas, backing.bytes]);
    }
    if !others.is_empty() {
        let sum = |of: fn(&Backing) -> u64| others.iter().map(of).fold(0, u64::saturating_add);
        row(&format!("  {} more kinds", others.len()), [sum(|b| b.buffers), sum(|b| b.vmas), sum(|b| b.bytes)]);
    }
    bound(page, snapshot.books.figures.walks, UNWALKED_BUFFERS);
    if let Some((vm_files, files)) = snapshot.multi_vm_file_buffers.zip(snapshot.multi_file_buffers)
        && vm_files > 0
    {
        page.line(&format!("  {} more than one vm_file, {} more than one file", spans(vm_files), none_or(files)));
    }
}

fn none_or(count: u64) -> String {
    if count == 0 { "none".to_owned() } else { human::count(count) }
}

fn spans(buffers: u64) -> String {
    let verb = if buffers == 1 { "spans" } else { "span" };
    format!("{} {verb}", human::plural(buffers, "buffer"))
}

/// `file ext4, shared, read-only, not registered`: what is usual (private, writable, accepted) goes without saying
/// but for sharing.
pub(in crate::sink) fn describe(backing: &Backing) -> String {
    let mut text = backing.class.name().to_owned();
    if let Some(filesystem) = &backing.filesystem {
        text.push(' ');
        text.push_str(&human::cut(&human::plain(filesystem), 16));
    }
    text.push_str(if backing.shared { ", shared" } else { ", private" });
    if !backing.writable {
        text.push_str(", read-only");
    }
    if !backing.ok {
        text.push_str(", not registered");
    }
    text
}

pub(super) fn processes(page: &mut Page, snapshot: &Snapshot) {
    let Some(processes) = snapshot.processes.as_ref().filter(|processes| !processes.is_empty()) else { return };
    let columns = [("calls", 9), ("not ok", 9), ("buffers", 9), ("bytes", 10), ("time", 10), ("pin", 8)];
    page.section("PROCESSES", &columns);
    let (shown, others) = processes.split_at(processes.len().min(PROCESSES));
    let began = |process: &Process| {
        beginning(process.pid, &process.comm, processes.iter().map(|other| (other.pid, &*other.comm)))
    };
    for process in shown {
        let name = format!("  {} {}{}", human::plain(&process.comm), process.pid, began(process));
        page.row(&name, &process_cells(process));
    }
    let bounds = processes.iter().any(|process| process.lower_bounds);
    if !others.is_empty() {
        let sum = others.iter().fold(Process::default(), |sum, process| add(&sum, process));
        page.row(&format!("  {} others", others.len()), &process_cells(&sum));
    }
    if shown.iter().any(|process| !began(process).is_empty()) {
        page.paragraph("  @: ", "when the process began, in seconds since boot: another one had its number.");
    }
    if bounds {
        page.paragraph("  +: ", "of some of its calls the entry was not seen; what they did is not in these sums.");
    }
    bound(page, snapshot.books.figures.buffers, UNSEEN_BUFFERS);
}

/// ` @12.345s`, when the process began, where one of the others has its number and its name.
pub(in crate::sink) fn beginning<'a>(pid: Pid, comm: &str, others: impl IntoIterator<Item = (Pid, &'a str)>) -> String {
    let alike = others.into_iter().any(|(other, name)| name == comm && other.is_alike(pid));
    let began = pid.began_ns().filter(|_| alike);
    began.map(|ns| format!(" @{}.{:03}s", ns / 1_000_000_000, ns / 1_000_000 % 1000)).unwrap_or_default()
}

fn process_cells(process: &Process) -> [(String, usize); 6] {
    let duration = process.duration_ns.filter(|duration| *duration > 0);
    let share = process.pin_ns.zip(duration).map(|(pin, duration)| human::percent(pin as f64 / duration as f64));
    let bound = if process.lower_bounds { "+" } else { "" };
    let told = |figure: Option<u64>, show: fn(u64) -> String| {
        figure.map_or_else(dash, |figure| format!("{}{bound}", show(figure)))
    };
    [
        (human::count(process.registrations), 9),
        (human::count(process.failed.saturating_add(process.partial)), 9),
        (told(process.buffers, human::count), 9),
        (told(process.bytes, human::bytes), 10),
        (told(process.duration_ns, human::duration), 10),
        (share.unwrap_or_else(dash), 8),
    ]
}

fn add(sum: &Process, process: &Process) -> Process {
    let add = |a: Option<u64>, b: Option<u64>| b.map_or(a, |b| Some(a.unwrap_or(0).saturating_add(b)));
    Process {
        registrations: sum.registrations.saturating_add(process.registrations),
        failed: sum.failed.saturating_add(process.failed),
        partial: sum.partial.saturating_add(process.partial),
        unmeasured: sum.unmeasured.saturating_add(process.unmeasured),
        lower_bounds: sum.lower_bounds || process.lower_bounds,
        buffers: add(sum.buffers, process.buffers),
        bytes: add(sum.bytes, process.bytes),
        refused_bytes: add(sum.refused_bytes, process.refused_bytes),
        vmas: add(sum.vmas, process.vmas),
        duration_ns: add(sum.duration_ns, process.duration_ns),
        pin_ns: add(sum.pin_ns, process.pin_ns),
        ..Process::default()
    }
}

fn dash() -> String {
    "-".to_owned()
}
