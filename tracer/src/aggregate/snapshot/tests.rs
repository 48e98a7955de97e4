//! A snapshot is written and read back whole.

use proptest::prelude::*;
use serde_json::{Map, Value};
use tracer_ebpf::{
    backing::Class, installation::Installation, operation::Operation, policy::Policy, record::ProcessKey,
};

use super::*;
use crate::{
    aggregate::tests::{a_sample, any_capabilities, any_sample},
    aggregate::{Coverage, LongCall, Measured, SeenFrom, UnderWay, fold},
    answer::{fixture, tests::any_snapshot},
    decode::workload::Runtime,
    figure::{Figure, FigureSet},
};

fn read(text: &str) -> Snapshot {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn written(snapshot: &Snapshot) -> String {
    serde_json::to_string(snapshot).expect("a snapshot can be written")
}

/// A service's snapshot in which every field has a value.
pub(crate) fn everything() -> Snapshot {
    let mut snapshot = fixture::a_snapshot();
    let folded = fold(&a_sample(), &crate::decode::Capabilities::all());
    snapshot.registered.clone_from(&folded.registered);
    let (process, waits) = (ProcessKey { began_ns: 5, pid: 9, reserved: 0 }, fixture::values(&[3, 40, 40]));
    let pid = Pid::from(process);
    for largest in [&mut snapshot.largest_buffer, &mut snapshot.largest_registration].into_iter().flatten() {
        largest.pid = pid;
    }
    snapshot.judgements.iter_mut().flat_map(|judgements| &mut judgements.others).for_each(|one| one.pid = Some(pid));
    snapshot.rings.iter_mut().flat_map(|rings| &mut rings.list).flatten().for_each(|ring| ring.pid = pid);
    snapshot.shared_buffer_files.iter_mut().flatten().for_each(|file| file.pid = pid);
    if let Some(locks) = &mut snapshot.locks {
        (locks.read.wait, locks.write.wait) = (waits.clone(), waits.clone());
    }
    for operation in snapshot.operations.iter_mut().flatten() {
        operation.partial_reasons = vec![ResultCount { result: "EFAULT".to_owned(), count: 2 }];
        operation.duration.iter_mut().for_each(|duration| duration.partial = waits.clone());
    }
    snapshot.books.figures.call_times = Some(Measured { measured: 2, missed: 1, coverage: Some(2.0 / 3.0) });
    let long =
        LongCall { operation: Operation::Clone, pid: 9.into(), tid: 10.into(), comm: "fio".to_owned(), age_ns: 7 };
    snapshot.under_way =
        Some(UnderWay { oldest_ns: Some(7), long: vec![long], unseen_ends: 1, since: SeenFrom::Function });
    snapshot.figures.lose(&[Figure::Overlays], "no file.f_path");
    snapshot.figures.narrow(&[Figure::RegisteredBefore], "no iterators");
    snapshot.figures.bound(FigureSet::of(&[Figure::Buffers]), "3 were not seen".to_owned());
    snapshot.figures.leave_out(FigureSet::of(&[Figure::Phases]));
    snapshot
}

/// Puts other values in the place of some, of whatever type each is found to be read as.
fn shaken(value: &mut Value, whole: &Value, path: &mut Vec<String>, bits: &mut impl FnMut() -> u64) {
    match value {
        Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                path.push(place.to_string());
                shaken(item, whole, path, bits);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                path.push(key.replace('~', "~0").replace('/', "~1"));
                shaken(field, whole, path, bits);
                path.pop();
            }
        }
        leaf => {
            let number = bits();
            // Each read takes a while.
            if !number.is_multiple_of(8) {
                return;
            }
            let number = bits();
            let (integer, real) = (number >> (number % 64), (number >> 12) as f64 / 1e9);
            let candidates = match leaf {
                Value::Bool(_) => vec![Value::Bool(number & 1 == 1)],
                Value::Number(old) if old.is_f64() => vec![real.into(), Value::Null],
                Value::Number(_) if number.is_multiple_of(5) => vec![Value::Null],
                Value::Number(_) => vec![integer.into(), (integer as u32).into()],
                Value::Null => vec![integer.into(), "host:7".into(), Value::Null],
                _ => vec![format!("{number:x}\u{202e}\n\"").into()],
            };
            let pointer = format!("/{}", path.join("/"));
            for candidate in candidates {
                let mut changed = whole.clone();
                *changed.pointer_mut(&pointer).expect("a leaf") = candidate.clone();
                if serde_json::from_value::<Snapshot>(changed).is_ok() {
                    *leaf = candidate;
                    break;
                }
            }
        }
    }
}

/// The paths of all fields that are null or empty wherever they stand.
fn vacant(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, seen: &mut BTreeMap<String, bool>) {
        let filled = match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        *seen.entry(path.to_owned()).or_default() |= filled;
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), seen)),
            Value::Object(fields) => fields.iter().for_each(|(key, field)| walk(field, &format!("{path}.{key}"), seen)),
            _ => {}
        }
    }
    let mut seen = BTreeMap::new();
    walk(value, "", &mut seen);
    seen.into_iter().filter(|(_, filled)| !filled).map(|(path, _)| path).collect()
}

#[test]
fn a_snapshot_of_everything_is_read_back() {
    let everything = everything();
    assert_eq!(read(&written(&everything)), everything);
    let vacant = vacant(&serde_json::to_value(&everything).expect("JSON"));
    assert_eq!(vacant, Vec::<String>::new(), "the test proves nothing of these");
}

/// What a recording stores does not grow with the time that it covers: only the digits of its counts do.
#[test]
fn a_snapshot_does_not_grow_with_time() {
    let mut sample = a_sample();
    let short = written(&fold(&sample, &crate::decode::Capabilities::all()));
    for counter in sample.counters.iter_mut().chain(&mut sample.results).chain(sample.histograms.iter_mut().flatten()) {
        *counter *= 1000;
    }
    let long = written(&fold(&sample, &crate::decode::Capabilities::all()));
    let keys = |text: &str| text.matches("\":").count();
    assert_eq!(keys(&long), keys(&short));
    assert!(short.len() < 16 << 10, "{} bytes", short.len());
}

/// The names in JSON are those of every other output.
#[test]
fn enums_are_written_by_their_names() {
    fn check<T: Serialize + Copy>(all: &[T], name: impl Fn(T) -> &'static str) {
        for one in all {
            assert_eq!(serde_json::to_value(one).expect("JSON"), name(*one));
        }
    }
    check(&Operation::ALL, Operation::name);
    check(&Installation::ALL, Installation::name);
    check(&Policy::ALL, Policy::name);
    check(&Class::ALL, Class::name);
    check(&[Runtime::Docker, Runtime::Podman, Runtime::Crio, Runtime::Containerd, Runtime::Lxc], Runtime::name);
}

#[test]
fn what_is_not_known_is_read_as_unknown() {
    let whole = serde_json::to_value(everything()).expect("JSON");
    let mut fields: Map<_, _> = whole.as_object().expect("an object").clone();
    fields.insert("a_key_of_a_later_version".to_owned(), 1.into());
    for of_services in ["workloads", "registered", "runs", "own"] {
        fields.remove(of_services);
    }
    let read: Snapshot = serde_json::from_value(fields.into()).expect("a report's snapshot");
    assert!(read.workloads.is_none() && read.registered.is_none() && read.runs.is_none() && read.own.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn any_snapshot_is_read_back(mut snapshot in any_snapshot(), coverage in 0.0..=1.0_f64) {
        snapshot.books.coverage = Some(coverage);
        let calls = Measured { measured: 1, missed: 2, coverage: Some(coverage) };
        snapshot.books.figures = Coverage { calls: Some(calls), ..snapshot.books.figures };
        prop_assert_eq!(read(&written(&snapshot)), snapshot);
    }

    #[test]
    fn any_session_is_read_back(sample in any_sample(), known in any_capabilities()) {
        let snapshot = fold(&sample, &known);
        prop_assert_eq!(read(&written(&snapshot)), snapshot);
    }

    /// Every field has any value that its type allows.
    #[test]
    fn any_values_are_read_back(seed in any::<u64>()) {
        let whole = serde_json::to_value(everything()).expect("JSON");
        let mut state = seed | 1;
        let mut bits = || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut changed = whole.clone();
        shaken(&mut changed, &whole, &mut Vec::new(), &mut bits);
        let snapshot: Snapshot = serde_json::from_value(changed).expect("each value can be read");
        prop_assert_eq!(read(&written(&snapshot)), snapshot);
    }
}
