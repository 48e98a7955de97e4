//! The audit as JSON, with the exact figures.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Meta, json::SCHEMA};
use crate::aggregate::audit::Audit;

/// What `pinscope audit --json` prints: who took hold of which user pages. Null is unknown, never zero; times are nanoseconds,
/// without pinscope's own work.
#[derive(Serialize, JsonSchema)]
pub(super) struct Report<'a> {
    /// `audit`.
    r#type: &'static str,
    /// Number of the schema.
    schema: u32,
    #[serde(flatten)]
    meta: &'a Meta,
    #[serde(flatten)]
    audit: &'a Audit,
}

/// One object. The error is serde's, which these types do not raise.
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
