//! The report as JSON, with the exact figures.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Meta, human};
use crate::{
    aggregate::Snapshot,
    answer::{self, Answer, Answers, Explanation},
};

/// The number of the schema; json.md says when it grows.
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

/// What `pinscope report --json` prints: one object a report. Null is unknown, never zero; times are nanoseconds, without
/// pinscope's own walks; sizes are bytes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Report<'a> {
    /// `report`.
    r#type: &'static str,
    /// Number of the schema.
    schema: u32,
    #[serde(flatten)]
    meta: &'a Meta,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    /// The questions, in their order.
    #[schemars(with = "Vec<answer::Written>")]
    answers: &'a [Answer],
    /// What each process's registrations cost and what to change, with `--explain`; else null.
    explanations: Option<&'a [Explanation]>,
}

/// One object. The error is serde's, which these types do not raise.
pub fn report(snapshot: &Snapshot, meta: &Meta, told: &Answers) -> serde_json::Result<Value> {
    let Answers { answers, explanations } = told;
    let explanations = explanations.as_deref();
    serde_json::to_value(Report { r#type: "report", schema: SCHEMA, meta, snapshot, answers, explanations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::{fold, tests::a_sample},
        answer::fixture::{a_snapshot, context},
        decode::Capabilities,
    };

    fn of(snapshot: &Snapshot) -> Value {
        report(snapshot, &Meta::default(), &Answers::new(snapshot, &context(), true)).unwrap()
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
        assert_eq!(answers.len(), 6);
        for answer in answers {
            assert_eq!(keys(answer), "evidence id question state verdict why");
            assert_eq!(keys(&answer["evidence"]), "hooks kernel mode n notes of tables thresholds");
        }
        assert_eq!(keys(&answers[0]["evidence"]["thresholds"][0]), "name unit value");
        assert_eq!(keys(&answers[0]["evidence"]["tables"][0]), "name rows title");
        assert_eq!(keys(&answers[0]["evidence"]["hooks"][0]), "function role");
        assert_eq!(answers[2]["evidence"]["tables"][0]["rows"][0]["single_share"], 0.9);
        assert_eq!(keys(&json["explanations"][0]), "advice comm pid process_began_ns summary");
    }

    #[test]
    fn the_unknown_is_null() {
        let snapshot = fold(&a_sample(), &Capabilities::nothing());
        let json = report(&snapshot, &Meta::default(), &Answers::new(&snapshot, &context(), true)).unwrap();
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
