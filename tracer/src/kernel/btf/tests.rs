use std::io::Write;

use super::*;

const INT: u32 = 1;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const PROTO: u32 = 13;

/// Writes BTF as the kernel lays it out (Documentation/bpf/btf.rst).
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Blob {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        offset
    }

    /// One type with its trailing words; gives its id.
    fn add(&mut self, kind: u32, name: &str, members: usize, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        for word in [name, kind << 24 | members as u32, size_or_type].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(INT, name, 0, bytes, &[bytes * 8])
    }

    fn composite(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|&(name, id, bytes)| [self.name(name), id, bytes * 8]).collect();
        self.add(kind, name, members.len(), 64, &rest)
    }

    fn proto(&mut self, returns: u32, parameters: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = parameters.iter().flat_map(|&(name, id)| [self.name(name), id]).collect();
        self.add(PROTO, "", parameters.len(), returns, &rest)
    }

    fn bytes(self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let header = [24, 0, types, types, strings].map(u32::to_le_bytes).concat();
        [&[0x9f, 0xeb, 1, 0], &header[..], &self.types, &self.strings].concat()
    }

    fn read(self, wanted: &Wanted<'_>) -> Types {
        read(&self.bytes(), wanted).expect("BTF")
    }
}

fn read(bytes: &[u8], wanted: &Wanted<'_>) -> Known<Types> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    Types::read(file.path(), wanted)
}

const NONE: Wanted<'static> =
    Wanted { functions: &[], members: &[], tracepoints: &[], helpers: &[], structs: &[], enumerators: &[] };

#[test]
fn members_of_anonymous_structs_and_unions_count_as_the_outer_ones() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    let inner = blob.composite(UNION, "", &[("vm_flags", int, 0), ("__vm_flags", int, 4)]);
    let shielded = blob.add(CONST, "", 0, inner, &[]);
    let middle = blob.composite(STRUCT, "", &[("vm_start", int, 0), ("", shielded, 8)]);
    let named = blob.composite(STRUCT, "hidden", &[("deep", int, 0)]);
    blob.composite(STRUCT, "vma", &[("first", int, 0), ("", middle, 16), ("hidden", named, 32)]);
    let members = ["vma.first", "vma.vm_start", "vma.__vm_flags", "vma.hidden", "vma.deep", "absent.x"];
    let types = blob.read(&Wanted { members: &members, ..NONE });
    let offset = |member: &str| types.offsets.get(member).copied();
    assert_eq!(members.map(offset), [Some(0), Some(16), Some(28), Some(32), None, None]);
}

#[test]
fn two_structs_of_a_name_that_disagree_give_no_offset() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    for at in [0, 8] {
        blob.composite(STRUCT, "file", &[("same", int, 4), ("moved", int, at)]);
    }
    let types = blob.read(&Wanted { members: &["file.same", "file.moved"], structs: &["file", "gone"], ..NONE });
    assert_eq!(types.offsets, BTreeMap::from([("file.same".to_owned(), 4)]));
    assert_eq!(types.structs, BTreeSet::from(["file".to_owned()]));
}

#[test]
fn prototypes_lose_their_qualifiers_and_keep_their_typedefs() {
    let mut blob = Blob::default();
    let long = blob.int("long unsigned int", 8);
    let word = blob.add(TYPEDEF, "u64", 0, long, &[]);
    let page = blob.composite(STRUCT, "page", &[]);
    let shielded = blob.add(CONST, "", 0, page, &[]);
    let pointer = blob.add(PTR, "", 0, shielded, &[]);
    let pointers = blob.add(PTR, "", 0, pointer, &[]);
    let untyped = blob.add(PTR, "", 0, 0, &[]);
    let first = blob.proto(pointers, &[("at", long), ("n", word), ("arg", untyped)]);
    let second = blob.proto(0, &[]);
    for (name, proto) in [("pin", first), ("pin", first), ("twin", first), ("twin", second)] {
        blob.add(FUNC, name, 0, proto, &[]);
    }
    let types = blob.read(&Wanted { functions: &["pin", "twin", "absent"], ..NONE });
    let printed: Vec<_> = types.functions["pin"].iter().map(ToString::to_string).collect();
    assert_eq!(printed, ["struct page ** (unsigned long, u64, void *)"]);
    assert_eq!(types.functions["twin"].len(), 2);
    assert!(!types.functions.contains_key("absent"));
}

#[test]
fn a_tracepoint_has_the_names_of_the_function_that_calls_its_probes() {
    let mut blob = Blob::default();
    let long = blob.int("long int", 8);
    let untyped = blob.add(PTR, "", 0, 0, &[]);
    let unnamed = blob.proto(0, &[("", untyped), ("", untyped), ("", long)]);
    let pointer = blob.add(PTR, "", 0, unnamed, &[]);
    blob.add(TYPEDEF, "btf_trace_named", 0, pointer, &[]);
    blob.add(TYPEDEF, "btf_trace_bare", 0, pointer, &[]);
    let caller = blob.proto(long, &[("__data", untyped), ("ctx", untyped), ("ret", long)]);
    blob.add(FUNC, "__traceiter_named", 0, caller, &[]);
    // A function of the name alone makes no tracepoint.
    blob.add(FUNC, "__traceiter_absent", 0, caller, &[]);
    let types = blob.read(&Wanted { tracepoints: &["named", "bare", "absent"], ..NONE });
    let names = |point: &str| types.tracepoints[point].parameters.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    assert_eq!((names("named"), names("bare")), (vec!["ctx".to_owned(), "ret".to_owned()], vec![String::new(); 2]));
    assert_eq!(types.tracepoints["named"].to_string(), "void (void *, long)");
    assert_eq!(types.tracepoints.len(), 2);
}

#[test]
fn helpers_are_the_members_of_their_enum() {
    let mut blob = Blob::default();
    let (find, other) = (blob.name("BPF_FUNC_find_vma"), blob.name("BPF_FUNC_loop"));
    blob.add(ENUM, "bpf_func_id", 2, 4, &[find, 180, other, 181]);
    let types = blob.read(&Wanted { helpers: &["find_vma", "get_func_ret"], ..NONE });
    assert_eq!(types.helpers, BTreeSet::from(["find_vma".to_owned()]));
}

#[test]
fn enumerators_are_found_in_anonymous_enums_unless_they_disagree() {
    let mut blob = Blob::default();
    let [write, long, twice] = ["FOLL_WRITE", "FOLL_LONGTERM", "TWICE"].map(|name| blob.name(name));
    blob.add(ENUM, "", 3, 4, &[write, 1, long, 256, twice, 7]);
    blob.add(ENUM, "", 1, 4, &[twice, 8]);
    let types = blob.read(&Wanted { enumerators: &["FOLL_LONGTERM", "TWICE", "absent"], ..NONE });
    assert_eq!(types.enumerators, BTreeMap::from([("FOLL_LONGTERM".to_owned(), 256)]));
}

#[test]
fn controllers_have_the_numbers_of_their_enum() {
    let mut blob = Blob::default();
    let [memory, pids, count] = ["memory_cgrp_id", "pids_cgrp_id", "CGROUP_SUBSYS_COUNT"].map(|name| blob.name(name));
    blob.add(ENUM, "cgroup_subsys_id", 3, 4, &[memory, 4, pids, 8, count, 9]);
    let types = blob.read(&NONE);
    assert_eq!(types.subsystems, BTreeMap::from([("memory".to_owned(), 4), ("pids".to_owned(), 8)]));
}

#[test]
fn what_is_no_btf_is_unknown_with_its_path() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"no BTF at all").expect("written");
    let error = Types::read(file.path(), &NONE).expect_err("not BTF").to_string();
    assert_eq!(error, format!("{}: it is no BTF", file.path().display()));
}

/// Any byte may be wrong: what is read is then wrong or refused, and ends.
#[test]
fn broken_btf_is_refused_or_read_but_ends() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    let inner = blob.composite(UNION, "", &[("deep", int, 0)]);
    let shielded = blob.add(CONST, "", 0, inner, &[]);
    blob.composite(STRUCT, "vma", &[("first", int, 0), ("", shielded, 8)]);
    let pointer = blob.add(PTR, "", 0, int, &[]);
    let proto = blob.proto(pointer, &[("at", pointer), ("", 0)]);
    blob.add(FUNC, "pin", 0, proto, &[]);
    let pointer = blob.add(PTR, "", 0, proto, &[]);
    blob.add(TYPEDEF, "btf_trace_ring", 0, pointer, &[]);
    let bytes = blob.bytes();
    let wanted = Wanted { functions: &["pin"], members: &["vma.deep"], tracepoints: &["ring"], ..NONE };
    let whole = read(&bytes, &wanted).expect("BTF");
    assert_eq!((whole.offsets["vma.deep"], whole.functions.len(), whole.tracepoints.len()), (8, 1, 1));
    for position in 0..bytes.len() {
        assert!(read(&bytes[..position], &wanted).is_err(), "cut at {position}");
        for value in [0, 1, 0x7f, 0xff, bytes[position].wrapping_add(1), bytes[position].wrapping_sub(1)] {
            let mut changed = bytes.clone();
            changed[position] = value;
            let _ = read(&changed, &wanted);
        }
    }
}

#[test]
fn a_struct_that_holds_itself_ends() {
    let mut blob = Blob::default();
    // Two members without a name, each of them the struct itself.
    blob.composite(STRUCT, "s", &[("", 1, 0), ("", 1, 4)]);
    let wanted =
        Wanted { functions: &[], members: &["s.a"], tracepoints: &[], helpers: &[], structs: &[], enumerators: &[] };
    assert!(blob.read(&wanted).offsets.is_empty());
}
