//! A line a registration, as it happens: for people, and as JSON.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Meta, human,
    json::{SCHEMA, printable},
};
use crate::{
    aggregate::{LongCall, Losses, UnderWay},
    decode::{Backing, Counts, PARTIAL, Registration},
    figure::Figures,
};

/// No line for people is wider.
const WIDTH: usize = 100;

/// The heads of the columns of [`line()`].
pub fn header() -> String {
    columns(["TIME (UTC)", "PROCESS", "CALL", "RESULT", "BUFS", "BYTES", "VMAS", "TOOK", "PIN", "BACKINGS"])
}

/// One registration, at most 100 columns: time, process (comm/pid), operation, result, buffers, bytes, VMAs (`+`
/// where it is a lower bound, `-` where an upper one, `?` where neither), duration, the pins' share of it, what lies behind. `-` is unknown. Where only some of the
/// buffers were installed, the place in the list (from 0) of the one that was refused, and why, come before what lies behind.
pub fn line(registration: &Registration) -> String {
    let bound = match (registration.vmas_complete, registration.vmas_repeated) {
        (true, false) => "",
        (true, true) => "-",
        (false, false) => "+",
        (false, true) => "?",
    };
    columns([
        &time_of_day(registration.time.as_deref()),
        &process(registration),
        registration.operation,
        &registration.result,
        &told(registration.buffers, |buffers| buffers.to_string()),
        &told(registration.bytes, human::short_bytes),
        &told(registration.vmas, |vmas| format!("{vmas}{bound}")),
        &told(registration.duration_ns, human::short_duration),
        &told(share(registration), |share| format!("{:.0}%", share * 100.0)),
        &remarks(registration),
    ])
}

fn columns(cells: [&str; 10]) -> String {
    let [time, process, call, result, buffers, bytes, vmas, took, pin, backings] = cells;
    let process = human::padded(process, 14);
    let line = format!(
        "{time:<12} {process} {call:<8} {result:<7} {buffers:>4} {bytes:>5} {vmas:>5} {took:>6} {pin:>4} {backings}"
    );
    human::cut(line.trim_end(), WIDTH)
}

/// The last column: what there is of a wait, a refusal, and what lies behind.
fn remarks(registration: &Registration) -> String {
    let behind = behind(&registration.backings);
    let behind = (!behind.is_empty()).then_some(behind);
    [waited(registration), stopped_at(registration), behind].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `[1] EFAULT` for the buffer at which an update stopped.
fn stopped_at(registration: &Registration) -> Option<String> {
    let refused = registration.refused.as_ref().filter(|_| registration.result == PARTIAL)?;
    Some(format!("[{}] {}", refused.index, refused.result.as_deref().unwrap_or("refused")))
}

/// `waited 7.74s` where the caller waited for the ring's lock for as long as the function took, and a millisecond at the least.
fn waited(registration: &Registration) -> Option<String> {
    const LEAST: u64 = 1_000_000;
    let waited = registration.wait_ns.filter(|wait| *wait >= registration.duration_ns.unwrap_or(0).max(LEAST));
    waited.map(|wait| format!("waited {}", human::short_duration(wait)))
}

/// A call that has not ended, for people.
pub fn under_way(call: &LongCall) -> String {
    let comm = human::plain(&call.comm);
    let (pid, tid, age) = (call.pid, call.tid, human::duration(call.age_ns));
    format!("still under way for {age}: {} of {comm} (pid {pid}, thread {tid})", call.operation.name())
}

/// Whether some of those may have ended, for people.
pub fn unseen_ends(calls: &UnderWay) -> Option<String> {
    let of = calls.unseen_ends;
    (of > 0 && !calls.long.is_empty()).then(|| {
        format!(
            "up to {} of these may have ended: the kernel skipped runs of the hook at the calls' end",
            human::count(of)
        )
    })
}

fn told<T>(figure: Option<T>, show: impl Fn(T) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), show)
}

/// `08:01:40.123` of `2001-09-09T08:01:40.123456Z`.
fn time_of_day(time: Option<&str>) -> String {
    let clock = time.and_then(|time| time.split_once('T')).map(|(_, clock)| clock.chars().take(12).collect());
    clock.unwrap_or_else(|| "-".to_owned())
}

/// `comm/pid` in 14 columns; the pid is kept whole.
fn process(registration: &Registration) -> String {
    let pid = registration.pid.to_string();
    let comm = human::plain(&registration.comm);
    format!("{}/{pid}", human::cut(&comm, 13_usize.saturating_sub(pid.len())))
}

fn share(registration: &Registration) -> Option<f64> {
    let whole = registration.duration_ns.filter(|duration| *duration > 0)?;
    Some(registration.pin_ns? as f64 / whole as f64)
}

/// `anon+ext4*`: the filesystem stands for a file, `*` marks a shared mapping of one.
fn behind(backings: &[Backing]) -> String {
    let mut names: Vec<String> = Vec::new();
    for backing in backings {
        let name = backing.filesystem.as_deref().map_or(backing.class.to_owned(), human::plain);
        let mark = if backing.shared && backing.filesystem.is_some() { "*" } else { "" };
        let name = format!("{name}{mark}");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join("+")
}

/// What `pinscope trace --json` prints: one object a line. Null is unknown, never zero; times are nanoseconds, without pinscope's
/// own walks; sizes are bytes.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    /// The first line, once the probes are attached.
    Start {
        /// Number of the schema.
        schema: u32,
        /// Always true.
        attached: bool,
        #[serde(flatten)]
        meta: &'a Meta,
        /// What lacks something and why, a line each.
        degraded: Vec<String>,
    },
    /// A registration, as it ended.
    Registration {
        /// Number of the schema.
        schema: u32,
        #[serde(flatten)]
        registration: &'a Registration,
    },
    /// The last line.
    End {
        /// Number of the schema.
        schema: u32,
        /// Registrations seen.
        registrations: u64,
        /// Registration records that found the ring buffer full, or were left in it.
        lost_registration_records: Option<u64>,
        /// Buffer records likewise.
        lost_buffer_records: Option<u64>,
        /// Bytes that were no record.
        malformed: u64,
        /// Buffers whose registration never came.
        orphans: u64,
        /// Calls that have not ended.
        under_way: Option<&'a UnderWay>,
        /// Descendants of the command that were still running when it ended.
        left_running: Option<u32>,
    },
}

fn text(line: &Line<'_>) -> serde_json::Result<String> {
    serde_json::to_string(line).map(printable)
}

/// The first object, once the probes are attached: `{"type":"start","schema":1,"attached":true,"version",
/// "kernel","mode","scope",...,"degraded":[...]}`. Like all of these without a line break.
pub fn json_start(meta: &Meta, figures: &Figures) -> serde_json::Result<String> {
    text(&Line::Start { schema: SCHEMA, attached: true, meta, degraded: figures.shown().collect() })
}

/// A registration: `{"type":"registration","schema":1,...}` with the keys of [`Registration`].
pub fn json_line(registration: &Registration) -> serde_json::Result<String> {
    text(&Line::Registration { schema: SCHEMA, registration })
}

/// The last object: `{"type":"end","schema":1,"registrations","lost_registration_records",
/// "lost_buffer_records","malformed","orphans","under_way","left_running"}`. `lost` is `None` where the counters could not be read;
/// `under_way` has the calls that have not ended; `left_running` is [`Meta::left_running`].
pub fn json_end(
    counts: Counts,
    lost: Option<&Losses>,
    under_way: Option<&UnderWay>,
    left_running: Option<u32>,
) -> serde_json::Result<String> {
    text(&Line::End {
        schema: SCHEMA,
        registrations: counts.registrations,
        lost_registration_records: lost.and_then(|lost| lost.registration_records),
        lost_buffer_records: lost.and_then(|lost| lost.buffer_records),
        malformed: counts.malformed,
        orphans: counts.orphans,
        under_way,
        left_running,
    })
}

/// The last line for people: what came, and what did not.
pub fn footer(counts: Counts, lost: Option<&Losses>) -> String {
    let lost_of = |of: fn(&Losses) -> Option<u64>| lost.and_then(of).unwrap_or(0);
    let causes = [
        (lost_of(|lost| lost.registration_records), "registration records lost"),
        (lost_of(|lost| lost.buffer_records), "buffer records lost"),
        (counts.orphans, "buffers without their registration"),
        (counts.malformed, "malformed records"),
    ];
    let losses = causes.iter().filter(|(count, _)| *count > 0);
    let mut facts = vec![human::plural(counts.registrations, "registration")];
    facts.extend(losses.map(|(count, what)| format!("{} {what}", human::count(*count))));
    if lost.is_none_or(|lost| lost.registration_records.is_none()) {
        facts.push("how many records were lost is not known".to_owned());
    }
    facts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::decode::{
        Assembler, Capabilities, Clock, Refused,
        tests::{a_buffer, a_registration, bytes_of},
    };
    use crate::figure::Figure;

    fn registration() -> Registration {
        let clock = Clock::new(UNIX_EPOCH + Duration::from_millis(1_000_000_000_123), Duration::ZERO);
        let mut assembler = Assembler::new(Capabilities::all(), clock);
        let names = HashMap::from([(9, "ext4".to_owned())]);
        assert!(assembler.push(&bytes_of(&a_buffer()), &names).is_none());
        assembler.push(&bytes_of(&a_registration()), &names).unwrap()
    }

    #[test]
    fn a_registration_is_a_line_under_its_heads() {
        assert_eq!(
            format!("{}\n{}", header(), line(&registration())),
            "TIME (UTC)   PROCESS        CALL     RESULT  BUFS BYTES  VMAS   TOOK  PIN BACKINGS\n\
             01:46:40.124 fio/11         register ok         1 8.00K     2 50.0µs  80% anon+ext4"
        );
    }

    #[test]
    fn the_unknown_is_a_dash() {
        let mut bare = registration();
        bare.backings.clear();
        let unknown = Registration {
            time: None,
            buffers: None,
            bytes: None,
            vmas: None,
            duration_ns: None,
            pin_ns: None,
            operation: "unregister",
            result: "EINVAL".to_owned(),
            ..bare
        };
        assert_eq!(line(&unknown), "-            fio/11         unregister EINVAL     -     -     -      -    -");
        let bound = Registration { vmas_complete: false, ..registration() };
        assert!(line(&bound).contains("   2+ "), "{}", line(&bound));
    }

    #[test]
    fn a_shared_file_is_marked() {
        let mut shared = registration();
        shared.backings[1].shared = true;
        assert!(line(&shared).ends_with("anon+ext4*"));
    }

    /// An unregister has nothing behind it.
    #[test]
    fn a_wait_ends_a_line_without_a_comma() {
        let waited = Registration { wait_ns: Some(5_020_000_000), duration_ns: Some(1000), ..registration() };
        assert!(line(&waited).ends_with(" waited 5.02s, anon+ext4"), "{}", line(&waited));
        let unregister = Registration { operation: "unregister", backings: Vec::new(), ..waited.clone() };
        assert!(line(&unregister).ends_with(" waited 5.02s"), "{}", line(&unregister));
        let refused = Some(Refused { index: 1, result: Some("EFAULT".to_owned()) });
        let update = Registration { result: PARTIAL.to_owned(), refused, backings: Vec::new(), ..waited };
        assert!(line(&update).ends_with(" waited 5.02s, [1] EFAULT"), "{}", line(&update));
    }

    #[test]
    fn a_partial_update_says_where_it_stopped_and_why() {
        let refused = Some(Refused { index: 1, result: Some("EFAULT".to_owned()) });
        let partial =
            Registration { operation: "update", result: PARTIAL.to_owned(), ret: 1, refused, ..registration() };
        assert!(line(&partial).ends_with("[1] EFAULT, anon+ext4"), "{}", line(&partial));
        let one = parse(&json_line(&partial).unwrap());
        assert_eq!((&one["result"], &one["refused"]), (&json!("partial"), &json!({"index": 1, "result": "EFAULT"})));
        let untold = Registration { refused: Some(Refused { index: 3, result: None }), ..partial };
        assert!(
            line(&untold).contains(" partial ") && line(&untold).contains("[3] refused, anon"),
            "{}",
            line(&untold)
        );
    }

    fn parse(line: &str) -> Value {
        assert!(!line.contains('\n'));
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn objects_say_what_they_are() {
        let meta = Meta { origin: crate::answer::Origin::new("6.12", "fentry"), ..Meta::default() };
        let mut figures = Figures::default();
        figures.lose(&[Figure::Vmas], "why");
        let start = parse(&json_start(&meta, &figures).unwrap());
        assert_eq!(
            [
                &start["type"],
                &start["schema"],
                &start["attached"],
                &start["mode"],
                &start["kernel"],
                &start["degraded"]
            ],
            [&json!("start"), &json!(1), &json!(true), &json!("fentry"), &json!("6.12"), &json!(["VMAs touched: why"])]
        );
        let one = parse(&json_line(&registration()).unwrap());
        assert_eq!((&one["type"], &one["schema"], &one["pid"]), (&json!("registration"), &json!(1), &json!(11)));
        assert_eq!(one["time"], "2001-09-09T01:46:40.124000Z");
        let lost = Losses { buffer_records: Some(3), ..Losses::default() };
        let end = parse(
            &json_end(Counts { registrations: 5, malformed: 1, orphans: 2 }, Some(&lost), None, Some(0)).unwrap(),
        );
        assert_eq!(
            end,
            json!({"type": "end", "schema": 1, "registrations": 5, "lost_registration_records": null,
                   "lost_buffer_records": 3, "malformed": 1, "orphans": 2, "under_way": null, "left_running": 0})
        );
    }

    #[test]
    fn a_name_that_shows_nothing_of_itself_is_escaped_and_stays_itself() {
        let comm = "\u{1b}\u{7f}\u{9b}\u{202e}\u{2066}é";
        let line = json_line(&Registration { comm: comm.to_owned(), ..registration() }).unwrap();
        let shown = |character: char| !character.is_control() && !"\u{202e}\u{2066}".contains(character);
        assert!(line.chars().all(shown), "{line:?}");
        assert_eq!(parse(&line)["comm"], comm);
    }

    #[test]
    fn no_kernel_address_is_told() {
        assert!(!json_line(&registration()).unwrap().contains(&a_registration().ring.to_string()));
    }

    #[test]
    fn the_last_line_says_what_was_lost() {
        let counts = Counts { registrations: 1, malformed: 0, orphans: 2 };
        let lost = Losses { registration_records: Some(4), ..Losses::default() };
        assert_eq!(
            footer(counts, Some(&lost)),
            "1 registration; 4 registration records lost; 2 buffers without their registration"
        );
        let unread = Losses { registration_records: None, ..Losses::default() };
        let unknown = "0 registrations; how many records were lost is not known";
        assert_eq!(footer(Counts::default(), Some(&unread)), unknown);
        assert_eq!(footer(Counts::default(), None), unknown);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_a_hundred_columns(
            comm in "\\PC{0,16}",
            figures in any::<[Option<u64>; 5]>(),
            pid: u32,
            filesystem in "\\PC{0,200}",
        ) {
            let [bytes, vmas, duration_ns, pin_ns, buffers] = figures;
            let mut any = registration();
            any.backings[0].filesystem = Some(filesystem);
            let any = Registration {
                comm, pid: pid.into(), bytes, vmas, duration_ns, pin_ns, buffers: buffers.map(|buffers| buffers as u32), ..any
            };
            let text = line(&any);
            prop_assert!(text.chars().count() <= WIDTH && !text.chars().any(char::is_control), "{text}");
        }
    }
}
