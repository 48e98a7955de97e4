//! What is printed is as its schema says, at every level.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::{
    aggregate::{
        audit::Audit,
        fold, snapshot_of_everything,
        tests::{any_capabilities, any_sample},
    },
    answer::{Answers, fixture::context, tests::any_snapshot},
    kernel::fixture,
    probe::plan::{Wish, plan},
    sink::Meta,
};

#[path = "../../../tests/vm/conforms.rs"]
mod conforms;

use conforms::conforms;

fn schema_of(command: &str) -> Value {
    schemas().into_iter().find(|(name, _)| *name == command).map(|(_, schema)| schema).expect("a schema")
}

fn report(snapshot: &crate::aggregate::Snapshot, schema: &Value) -> Result<(), String> {
    let told = Answers::new(snapshot, &context(), true);
    conforms(&json::report(snapshot, &Meta::default(), &told).expect("JSON"), schema)
}

#[test]
fn a_report_of_everything_is_as_its_schema_says() {
    assert_eq!(report(&snapshot_of_everything(), &schema_of("report")), Ok(()));
}

#[test]
fn the_check_sees_a_key_too_many_one_too_few_and_a_wrong_type() {
    let schema = schema_of("audit");
    let audit = audit::audit(&Audit::default(), &Meta::default()).expect("JSON");
    assert_eq!(conforms(&audit, &schema), Ok(()));
    let changed = |change: fn(&mut Map<String, Value>)| {
        let mut fields = audit.as_object().expect("an object").clone();
        change(&mut fields);
        conforms(&fields.into(), &schema).is_err()
    };
    assert!(changed(|fields| drop(fields.insert("more".to_owned(), 1.into()))));
    assert!(changed(|fields| drop(fields.remove("rows"))));
    assert!(changed(|fields| drop(fields.insert("unjudged".to_owned(), (-1).into()))));
    assert!(changed(|fields| drop(fields.insert("cost".to_owned(), Value::Null))));
}

#[test]
fn what_the_doctor_says_of_every_kernel_is_as_its_schema_says() {
    let schema = schema_of("doctor");
    for facts in fixture::all().into_iter().chain([fixture::holding(fixture::debian_6_12(), &[])]) {
        let json = doctor::json(&facts, &plan(&facts, &Wish::default())).expect("JSON");
        assert_eq!(conforms(&json, &schema), Ok(()));
    }
}

#[test]
fn every_key_is_explained() {
    fn unexplained(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (key, of) in schema["properties"].as_object().into_iter().flatten() {
            if description(of).is_none() && of.get("const").is_none() && of.get("$ref").is_none() {
                found.push(format!("{path}.{key}"));
            }
        }
        for (name, of) in schema["$defs"].as_object().into_iter().flatten() {
            unexplained(of, &format!("{path} {name}"), found);
        }
        // An enum with a value explains each of its variants.
        let lines = schema["oneOf"].as_array().into_iter().flatten();
        lines.filter(|of| of["properties"]["type"].is_object()).for_each(|of| unexplained(of, path, found));
    }
    let mut found = Vec::new();
    for (command, schema) in schemas() {
        unexplained(&schema, command, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_description_has_no_links() {
    assert_eq!(
        plain("Name of the [`Class`](a::Class), see\n[`SelfUsage::x`]; `None` is none"),
        "Name of the `Class`, see `x`; null is none"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_report_is_as_its_schema_says(snapshot in any_snapshot(), sample in any_sample(), capabilities in any_capabilities()) {
        let schema = schema_of("report");
        prop_assert_eq!(report(&snapshot, &schema), Ok(()));
        prop_assert_eq!(report(&fold(&sample, &capabilities), &schema), Ok(()));
    }
}
