//! The report as JSON, with the exact figures.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{Meta, human};
use crate::{
    aggregate::Snapshot,
    answer::{Answer, Explanation, Told},
};

/// The number of the schema; it grows when a key changes its meaning or goes. Keys may be added without.
pub const SCHEMA: u32 = 1;

/// JSON's text with what shows nothing of itself written as escapes: C1 controls, and marks that turn the text's direction.
/// Outside strings JSON has none of these.
pub fn printable(json: String) -> String {
    if json.bytes().all(|byte| byte.is_ascii() && byte != 0x7f) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\u{7f}' || !character.is_ascii() && human::is_unseen(character) {
            // Writing to a string cannot fail; all of these are of four digits.
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

#[derive(Serialize)]
struct Report<'a> {
    r#type: &'static str,
    schema: u32,
    #[serde(flatten)]
    meta: &'a Meta,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    answers: &'a [Answer],
    explanations: Option<&'a [Explanation]>,
}

/// One object. `null` is unknown, never zero; times are nanoseconds, without pinscope's own walks; sizes are bytes.
///
/// ```text
/// type "report", schema 1
/// version, kernel, mode, scope, command, exit_code, left_running, started      see `sink::Meta`
/// elapsed_ns
/// operations[4]   operation, ok, partial, failed, results[{result, count}], partial_reasons[{result, count}],
///                 duration {ok, partial, failed} of DISTRIBUTION; all of it null without the kernel's tracepoint
/// split           total_ns, pin_ns, rest_ns, complete            register and update together
/// pin, registration_vmas, buffer_vmas, registration_buffers, registration_bytes (registered)      DISTRIBUTION;
///                 refused_bytes (asked for and not registered)
/// faults          minor, major, untold_buffers;  lookups;  multi_file_buffers;  multi_vm_file_buffers
/// backings[]      class, filesystem, shared, writable, ok, buffers, vmas, bytes
/// pid, wherever it stands: as pinscope's PID namespace has it; a text `host:NUMBER` where the process is not in that.
/// processes[]     pid, comm, uid, cgroup_id, registrations, failed, partial, unmeasured, lower_bounds, buffers, bytes (registered),
///                 refused_bytes, vmas,
///                 duration_ns, pin_ns,
///                 habits {enomem, minor_faults, major_faults, faulting_pin_ns, faulting_bytes, untold_faults, large_buffers, large_bytes,
///                 large_bvecs, adjacent_buffers, adjacent_bytes, long_lists, repeated, repeated_ns, many_vma_buffers,
///                 many_vmas, many_vma_pin_ns}
/// installations   before_requests, after_requests: of the ring's first one; kinds {table, fill, replacement, update, clone},
///                 emptying_updates: {before_requests, after_requests} each
/// rings           age, gap, ordinal DISTRIBUTION; unlisted; list[{pid, comm, fd, flags,
///                 registers, updates, clones, unregisters, failed, after_requests, fills, fills_after_requests, switches,
///                 switch_gaps, switch_span_ns, first_age_ns, last_age_ns, gaps, span_ns, shortest_gap_ns}]
/// costs[]         vmas_from, vmas_to, pages_from, pages_to, buffers, vmas, bytes, pin_ns, walk_ns, faults, slow, slow_ns
/// largest_registration, largest_buffer            vmas, bytes, buffers, nanoseconds, pid, comm
/// judgements      clean, rolled_back, unjudged, kernel_policy, kernel_policy_why, others[{traits[], errno, pid, comm, filesystem,
///                 class, buffers, bytes}]
/// shared_buffer_files[]   pid, comm, name, filesystem, inode, buffers
/// walks           complete, hole, busy, cut, none, vmas, nanoseconds
/// unregisters     internal, ring_exit
/// books           operations[{operation, counted, entries, returns, ledger, refused_early, missed_entries,
///                 missed_returns, skipped_entries, in_flight, coverage, unexplained}], buffers and pins {entries, returns,
///                 missed_returns, missed_entries, in_flight}, in_flight, begun_before (calls under way when the session
///                 began, in no other figure), coverage, balanced,
///                 figures {calls, buffers, pins, walks {measured, missed, coverage}, uncounted, unnoted_rings,
///                 unseen_locks}
/// skipped[]       program, runs
/// lost            registration_records, buffer_records, frames, processes, backings, reentries, descendants,
///                 short_records
/// degraded[]      reasons;  lower_bounds[]: those of them that say which sums lack what was not seen
/// calls[]         operation, calls, total_ns, wait_ns, function_ns, after_ns: the system calls' own time
/// under_way       oldest_ns, since, unseen_ends, long[{operation, pid, tid, comm, age_ns}]: calls that have not ended
/// locks           registrations, readers, writers, waited, total_ns, wait_ns, read and write {acquisitions, wait:
///                 DISTRIBUTION}, failed_trylocks, killed_waits, complete            with --locks
/// phases          registrations, left_out, total_ns, pin {calls, ns}, faults, lookups, pin_other_ns, rest_ns,
///                 accounting, rest_other_ns, slow {pins, ns, fast_pins, fast_ns}, missed         with --phases
/// answers[7]      id, question, state ("answered", "degraded", "unanswerable"), why[], verdict (one sentence, or null),
///                 evidence {n, of, kernel, mode, hooks[{role, function}], thresholds[{name, value, unit}],
///                 tables[{name, title, rows[{KEY: figure}]}], notes[]}
/// explanations[]  with --explain, else null: pid, comm, summary, advice[{rule, seen, costs, change, expect,
///                 thresholds[{name, value, unit}]}]
///
/// DISTRIBUTION    count, sum, mean, p50, p90, p99, max, buckets[{lower, upper, count}]
/// ```
///
/// A bucket's bounds are both inclusive; `p50` to `max` are never too low, at most 1/8 too high, and exact
/// below 16. The error is serde's, which these types do not raise.
pub fn report(snapshot: &Snapshot, meta: &Meta, told: &Told) -> serde_json::Result<Value> {
    let Told { answers, explanations } = told;
    let explanations = explanations.as_deref();
    serde_json::to_value(Report { r#type: "report", schema: SCHEMA, meta, snapshot, answers, explanations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::{fold, tests::a_sample},
        answer::fixture::{a_snapshot, context},
        decode::Known,
    };

    fn of(snapshot: &Snapshot) -> Value {
        report(snapshot, &Meta::default(), &Told::new(snapshot, &context(), true)).unwrap()
    }

    fn keys(value: &Value) -> String {
        value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_documented_key_is_there() {
        let json = of(&Snapshot { workloads: None, registered: None, runs: None, own: None, ..a_snapshot() });
        assert_eq!(
            keys(&json),
            "answers availability backings books buffer_vmas calls command costs degraded elapsed_ns exit_code explanations faults \
             installations judgements kernel largest_buffer largest_registration left_running locks lookups lost lower_bounds mode \
             multi_file_buffers multi_vm_file_buffers operations phases pin processes refused_bytes registration_buffers registration_bytes \
             registration_vmas rings schema scope shared_buffer_files skipped split started type under_way unregisters version \
             walks"
        );
        assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"report".into()));
        assert_eq!(json["operations"][0]["results"][0], serde_json::json!({"result": "ok", "count": 10}));
        assert_eq!(json["operations"][0]["duration"]["ok"]["count"], 10);
    }

    #[test]
    fn every_documented_key_of_an_answer_is_there() {
        let json = of(&a_snapshot());
        let answers = json["answers"].as_array().unwrap();
        assert_eq!(answers.len(), 7);
        for answer in answers {
            assert_eq!(keys(answer), "evidence id question state verdict why");
            assert_eq!(keys(&answer["evidence"]), "hooks kernel mode n notes of tables thresholds");
        }
        assert_eq!(keys(&answers[0]["evidence"]["thresholds"][0]), "name unit value");
        assert_eq!(keys(&answers[0]["evidence"]["tables"][0]), "name rows title");
        assert_eq!(keys(&answers[0]["evidence"]["hooks"][0]), "function role");
        assert_eq!(answers[2]["evidence"]["tables"][0]["rows"][0]["single_share"], 0.9);
        assert_eq!(keys(&json["explanations"][0]), "advice comm pid summary");
    }

    #[test]
    fn the_unknown_is_null() {
        let snapshot = fold(&a_sample(), &Known::nothing());
        let json = report(&snapshot, &Meta::default(), &Told::new(&snapshot, &context(), true)).unwrap();
        for key in [
            "split",
            "pin",
            "registration_vmas",
            "faults",
            "lookups",
            "backings",
            "processes",
            "walks",
            "locks",
            "phases",
            "rings",
            "costs",
            "judgements",
            "explanations",
        ] {
            assert!(json[key].is_null(), "{key}");
        }
        assert!(json["operations"][0]["duration"].is_null());
        assert!(json["books"]["coverage"].is_null() && json["books"]["operations"][0]["ledger"].is_null());
        assert!(json["answers"][0]["verdict"].is_null());
    }
}
