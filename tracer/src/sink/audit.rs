//! The audit as JSON, with the exact figures.

use serde::Serialize;
use serde_json::Value;

use super::Meta;
use crate::aggregate::audit::Audit;

/// The number of the schema; it grows when a key changes its meaning or goes. Keys may be added without.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    r#type: &'static str,
    schema: u32,
    #[serde(flatten)]
    meta: &'a Meta,
    #[serde(flatten)]
    audit: &'a Audit,
}

/// One object. `null` is unknown, never zero; times are nanoseconds, without pinscope's own work.
///
/// ```text
/// type "audit", schema 1
/// version, kernel, mode, scope, command, exit_code, left_running, started      see `sink::Meta`
/// elapsed_ns, answer (answered, degraded, unanswerable), degraded[]
/// rows[]       caller, module, function, flags[], comm, backing {seen, class, filesystem, shared, writable, mixed},
///              calls, failed, errors {errno: count}, pages_asked, pages, bytes, vmas, time_ns,
///              refused {as_proposed, since_6_5}, chains[{calls, steps[{function, offset, module}]}]
/// read_only    calls that are not listed
/// refused      as_proposed, since_6_5;  unjudged
/// functions[]  function, mechanism, why
/// books        entries, returns, missed_returns, missed_entries, in_flight
/// lost         frames, stacks, rows, skipped
/// cost         entry_ns, runs, run_ns, share, why_not
/// ```
///
/// The error is serde's, which these types do not raise.
pub fn audit(audit: &Audit, meta: &Meta) -> serde_json::Result<Value> {
    serde_json::to_value(Report { r#type: "audit", schema: SCHEMA, meta, audit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_key_is_there() {
        let json = audit(&Audit::default(), &Meta::default()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys.join(" "),
            "answer books command cost degraded elapsed_ns exit_code functions kernel left_running lost mode read_only refused rows \
             schema scope started type unjudged version"
        );
        assert!(json["refused"]["as_proposed"].is_null() && json["cost"]["run_ns"].is_null());
    }
}
