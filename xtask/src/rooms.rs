//! Table of which rooms of the code may use which, checked against the paths in the sources.
//!
//! A room is a top-level module of a crate: a file or a folder. Code that only tests use is ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Another room that a room uses, and the reason.
type Use = (&'static str, &'static str);

/// The rooms of `tracer/src`. Each may use only the rooms that it lists, and these must stand above it. This rules out
/// cycles, direct or indirect.
const ROOMS: [(&str, &[Use]); 17] = [
    ("human", &[]),
    ("figure", &[]),
    ("limits", &[]),
    ("memory", &[]),
    ("say", &[]),
    ("logging", &[("say", "")]),
    ("bpf", &[("memory", "the size of a page"), ("human", "the verifier's output")]),
    ("kernel", &[("bpf", "facts from system calls"), ("memory", "the size of a page")]),
    ("decode", &[("figure", "which are available"), ("human", "makes foreign names printable")]),
    ("sample", &[("decode", "a reading names its workload"), ("memory", "the size of a page")]),
    (
        "probe",
        &[
            ("figure", ""),
            ("kernel", "plans by its facts"),
            ("bpf", "loads and links beyond aya's means"),
            ("memory", "returns memory after loading"),
            ("limits", "limit of open files"),
        ],
    ),
    (
        "source",
        &[
            ("probe", "reads what it attached"),
            ("bpf", "reads maps and programs through it"),
            ("sample", "its result"),
            ("decode", "paths of cgroups, ids of tasks"),
            ("kernel", "where the hierarchy of cgroups is"),
            ("human", "makes names of filesystems printable"),
        ],
    ),
    (
        "aggregate",
        &[
            ("figure", ""),
            ("sample", "its input"),
            ("decode", "names of results, filesystems and processes; which figures were measured"),
            ("kernel", "resolves the addresses of an audit's callers"),
            ("probe", "names of figures"),
            ("human", ""),
        ],
    ),
    (
        "answer",
        &[
            ("figure", ""),
            ("aggregate", "its input"),
            ("decode", "names of results and processes"),
            ("kernel", "the size of a page"),
            ("probe", "names of figures"),
            ("human", ""),
        ],
    ),
    (
        "sink",
        &[
            ("figure", ""),
            ("aggregate", ""),
            ("answer", ""),
            ("decode", "a trace shows records"),
            ("sample", "the service's own costs"),
            ("probe", "doctor shows the plan, the service its health"),
            ("kernel", "doctor shows the facts"),
            ("human", ""),
        ],
    ),
    (
        "cli",
        &[
            ("sink", "where to listen and export to"),
            ("probe", "what to plan for, and how to load"),
            ("kernel", "workloads need the hierarchy of cgroups"),
            ("human", ""),
        ],
    ),
    (
        "session",
        &[
            ("figure", ""),
            ("cli", ""),
            ("sink", ""),
            ("answer", ""),
            ("aggregate", ""),
            ("source", ""),
            ("sample", ""),
            ("decode", ""),
            ("probe", ""),
            ("kernel", ""),
            ("bpf", ""),
            ("logging", "a reload may change the level"),
            ("memory", ""),
            ("limits", "a child command gets pinscope's original limits"),
            ("say", ""),
        ],
    ),
];

/// Modules that are not rooms: the crate's root, the program, and the fuzzers' access to all rooms.
const APART: [&str; 3] = ["lib", "main", "fuzz"];

/// Rooms that may name aya, the bpf(2) library.
const WITH_AYA: [&str; 5] = ["bpf", "probe", "source", "session", "logging"];

/// Code of each room of a crate or module in `folder`.
fn rooms(folder: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut rooms = BTreeMap::new();
    for entry in fs::read_dir(root).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        collect(&path, rooms.entry(name).or_default());
    }
    rooms
}

fn collect(path: &Path, code: &mut String) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    if path.is_dir() && name != "tests" {
        for entry in fs::read_dir(path).expect("a folder") {
            collect(&entry.expect("an entry").path(), code);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" && name != "fixture.rs"
    {
        code.push_str(&shipped(&fs::read_to_string(path).expect("a file")));
    }
}

/// A file without its comments and without the tests at its end.
fn shipped(file: &str) -> String {
    let end = file.find("#[cfg(test)]\nmod tests {").unwrap_or(file.len());
    let lines = file[..end].lines().map(|line| line.find("//").map_or(line, |comment| &line[..comment]));
    lines.collect::<Vec<_>>().join("\n")
}

/// Rooms named after a prefix such as `crate::`, alone or in a list.
fn used(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        let path = &code[start + prefix.len()..];
        match path.strip_prefix('{') {
            None => all.extend(identifier(path)),
            Some(list) => all.extend(items(list).into_iter().filter_map(identifier)),
        }
    }
    all
}

/// Items of a list up to its closing brace.
fn items(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

fn identifier(path: &str) -> Option<String> {
    let name: String = path.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// A cycle of uses, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(uses: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let last = way.last().cloned().unwrap_or_default();
        for next in uses.get(&last).into_iter().flatten() {
            if way.contains(next) {
                way.push(next.clone());
                return true;
            }
            if uses.contains_key(next) && done.insert(next.clone()) {
                way.push(next.clone());
                if walk(uses, way, done) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|from| {
        let mut way = vec![from.clone()];
        walk(uses, &mut way, &mut done).then_some(way)
    })
}

fn uses_of(folder: &str, prefix: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rooms = rooms(folder);
    let of = |(name, code): (&String, &String)| {
        let mut used = used(code, prefix);
        used.retain(|other| other != name && rooms.contains_key(other));
        (name.clone(), used)
    };
    rooms.iter().map(of).collect()
}

#[test]
fn each_room_uses_what_the_table_lets_it() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ROOMS.iter().map(|(room, uses)| (*room, uses.iter().map(|(other, _)| *other).collect())).collect();
    for (room, uses) in uses_of("tracer/src", "crate::") {
        if APART.contains(&room.as_str()) {
            continue;
        }
        let allowed =
            allowed.get(room.as_str()).unwrap_or_else(|| panic!("{room} is not in the table of xtask/src/rooms.rs"));
        for other in &uses {
            assert!(allowed.contains(other.as_str()), "{room} uses {other}: xtask/src/rooms.rs does not allow it");
        }
    }
}

#[test]
fn a_room_uses_only_rooms_above_it() {
    for (place, (room, uses)) in ROOMS.iter().enumerate() {
        for (other, _) in *uses {
            assert!(ROOMS[..place].iter().any(|(above, _)| above == other), "{room} may use {other}");
        }
    }
}

#[test]
fn the_library_of_bpf_is_named_in_few_rooms() {
    for (room, code) in rooms("tracer/src") {
        let named = ["aya::", "aya_obj::", "aya_log::"].iter().any(|library| code.contains(library));
        assert!(!named || WITH_AYA.contains(&room.as_str()), "{room} names aya");
    }
}

#[test]
fn the_programs_use_each_other_one_way() {
    let programs = uses_of("tracer-ebpf/src/program", "crate::program::");
    assert!(programs.len() > 20 && programs["fold"].contains("outcome"), "{programs:?}");
    assert_eq!(circle(&programs), None);
    let back: Vec<_> = programs.iter().filter(|(_, uses)| uses.contains("probe")).collect();
    assert!(back.is_empty(), "no program may use the hooks: {back:?}");
    assert_eq!(circle(&uses_of("tracer-ebpf/src/abi", "crate::")), None);
}

#[test]
fn paths_and_cycles_are_found() {
    let code = "use crate::{\n    answer::{Answer, q1::{A, B}},\n    human,\n};\nlet x = crate::probe::table::RING;";
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(used(code, "crate::"), names(&["answer", "human", "probe"]));
    assert_eq!(used(&shipped("// crate::a\n#[cfg(test)]\nmod tests {\n use crate::b;\n}\n"), "crate::"), names(&[]));
    let uses = |pairs: &[(&str, &[&str])]| pairs.iter().map(|(from, to)| ((*from).to_owned(), names(to))).collect();
    assert_eq!(circle(&uses(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    let way = circle(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])).expect("a circle");
    assert_eq!(way, ["a", "b", "c", "b"]);
}
