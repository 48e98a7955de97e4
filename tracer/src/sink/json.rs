//! The report as JSON, with the exact figures.

use serde::Serialize;
use serde_json::Value;

use super::Meta;
use crate::aggregate::Snapshot;

/// The number of the schema; it grows when a key changes its meaning or goes. Keys may be added without.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    r#type: &'static str,
    schema: u32,
    #[serde(flatten)]
    meta: &'a Meta,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

/// One object. `null` is unknown, never zero; times are nanoseconds, without pinscope's own walks; sizes are bytes.
///
/// ```text
/// type "report", schema 1
/// version, kernel, mode, scope, command, exit_code, started      see `sink::Meta`
/// elapsed_ns
/// operations[4]   operation, ok, failed, results[{result, count}], duration {ok, failed} of DISTRIBUTION
/// split           total_ns, pin_ns, rest_ns, complete            register and update together
/// pin, registration_vmas, buffer_vmas, registration_buffers, registration_bytes      DISTRIBUTION
/// faults          minor, major;  lookups;  multi_file_buffers
/// backings[]      class, filesystem, shared, writable, ok, buffers, vmas, bytes
/// processes[]     pid, comm, uid, cgroup_id, registrations, failed, buffers, bytes, vmas, duration_ns, pin_ns
/// walks           complete, hole, busy, cut, none, vmas, nanoseconds
/// unregisters     internal, ring_exit
/// books           operations[{operation, counted, entries, returns, ledger, refused_early, missed_entries,
///                 missed_returns, skipped_entries, in_flight, coverage, unexplained}], buffers and pins {entries, returns,
///                 missed_returns, missed_entries, in_flight}, in_flight, coverage, balanced
/// skipped[]       program, runs
/// lost            registration_records, buffer_records, frames, processes, backings, reentries, descendants,
///                 short_records
/// degraded[]      reasons
/// locks           registrations, readers, writers, waited, total_ns, wait_ns, read and write {acquisitions, wait:
///                 DISTRIBUTION}, failed_trylocks, killed_waits, complete            with --locks
/// phases          registrations, left_out, total_ns, pin {calls, ns}, faults, lookups, pin_other_ns, rest_ns,
///                 accounting, rest_other_ns, slow {pins, ns, fast_pins, fast_ns}, missed         with --phases
///
/// DISTRIBUTION    count, sum, mean, p50, p90, p99, max, buckets[{lower, upper, count}]
/// ```
///
/// A bucket's bounds are both inclusive; `p50` to `max` are never too low, at most 1/8 too high, and exact
/// below 16. The error is serde's, which these types do not raise.
pub fn report(snapshot: &Snapshot, meta: &Meta) -> serde_json::Result<Value> {
    serde_json::to_value(Report { r#type: "report", schema: SCHEMA, meta, snapshot })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::{fold, tests::a_sample},
        decode::Known,
    };

    #[test]
    fn every_documented_key_is_there() {
        let json = report(&fold(&a_sample(), &Known::all()), &Meta::default()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys.join(" "),
            "backings books buffer_vmas command degraded elapsed_ns exit_code faults kernel locks lookups lost \
             mode multi_file_buffers operations phases pin processes registration_buffers registration_bytes \
             registration_vmas schema scope skipped split started type unregisters version walks"
        );
        assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"report".into()));
        assert_eq!(json["operations"][0]["results"][0], serde_json::json!({"result": "ok", "count": 10}));
        assert_eq!(json["operations"][0]["duration"]["ok"]["count"], 10);
    }

    #[test]
    fn the_unknown_is_null() {
        let json = report(&fold(&a_sample(), &Known::nothing()), &Meta::default()).unwrap();
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
        ] {
            assert!(json[key].is_null(), "{key}");
        }
        assert!(json["operations"][0]["duration"].is_null());
        assert!(json["books"]["coverage"].is_null() && json["books"]["operations"][0]["ledger"].is_null());
    }
}
