use std::collections::HashMap;

use proptest::prelude::*;
use tracer_ebpf::{
    backing::{Class, Rule},
    record::flag,
};

use super::*;

/// The bytes of a record as the ring buffer would give them.
pub(crate) fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: the records are `repr(C)` without padding (`records_have_no_padding`), so every byte is set.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
}

pub(crate) fn a_registration() -> RegistrationRecord {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"fio");
    RegistrationRecord {
        header: Header { kind: KIND_REGISTRATION, tid: 12, start_ns: 1_000_000 },
        duration_ns: 50_000,
        pin_ns: 40_000,
        walk_ns: 3_000,
        ring: 0xffff_8880_0000_1000,
        ring_created_ns: 400_000,
        bytes: 8192,
        registered: 8192,
        vmas: 2,
        lookups: 1,
        minor_faults: 2,
        cgroup: 77,
        pid: 11,
        uid: 1000,
        flags: flag::RING_KNOWN | flag::PINNED | flag::TIMED,
        buffers: 1,
        requested: 1,
        vm_files: 1,
        files: 1,
        ring_fd: 5,
        ring_flags: 2,
        comm,
        ..RegistrationRecord::default()
    }
}

pub(crate) fn a_buffer() -> BufferRecord {
    let mut backings = [BackingSlice::default(); BACKING_SLICES];
    backings[0] = BackingSlice { filesystem: 0, bytes: 4096, vmas: 1, kind: Kind::new(Class::Anon, false, true) };
    backings[1] = BackingSlice { filesystem: 9, bytes: 4096, vmas: 1, kind: Kind::new(Class::File, false, true) };
    BufferRecord {
        header: Header { kind: KIND_BUFFER, tid: 12, start_ns: 1_000_000 },
        address: 0x7f00_0000_0000,
        length: 8192,
        duration_ns: 45_000,
        pin_ns: 40_000,
        walk_ns: 3_000,
        minor_faults: 2,
        vmas: 2,
        lookups: 1,
        vm_files: 1,
        files: 1,
        bvecs: 2,
        folio_shift: 12,
        flags: flag::PINNED,
        walk: Walk::Complete as u8,
        backings,
        ..BufferRecord::default()
    }
}

fn assembler(capabilities: Capabilities) -> Assembler {
    Assembler::new(capabilities, Clock::default())
}

fn ext4() -> HashMap<u64, String> {
    HashMap::from([(9, "ext4".to_owned())])
}

/// What comes out of the buffers' and then the registration's bytes.
fn whole(capabilities: Capabilities, registration: &RegistrationRecord, buffers: &[BufferRecord]) -> Registration {
    let mut assembler = assembler(capabilities);
    for buffer in buffers {
        assert_eq!(assembler.push(&bytes_of(buffer), &ext4()), None);
    }
    assembler.push(&bytes_of(registration), &ext4()).unwrap()
}

#[test]
fn records_have_no_padding() {
    assert_eq!(offset_of!(RegistrationRecord, lock_wait_ns), offset_of!(RegistrationRecord, comm) + 16);
    assert_eq!(size_of::<RegistrationRecord>(), offset_of!(RegistrationRecord, lock_writes) + 4);
    assert_eq!(offset_of!(RegistrationRecord, comm), offset_of!(RegistrationRecord, reserved) + 2);
    assert_eq!(
        size_of::<BufferRecord>(),
        offset_of!(BufferRecord, backings) + BACKING_SLICES * size_of::<BackingSlice>()
    );
}

#[test]
fn a_record_is_read_back_as_it_was() {
    let registration = a_registration();
    let read = decode(&bytes_of(&registration));
    assert_eq!(read, Ok(Record::Registration(Operation::Register, Box::new(registration))));
    let buffer = a_buffer();
    assert_eq!(decode(&bytes_of(&buffer)), Ok(Record::Buffer(Walk::Complete, Box::new(buffer))));
}

#[test]
fn what_is_no_record_is_told_why() {
    assert_eq!(decode(&[1, 0, 0]), Err(Malformed::Short(3)));
    let mut registration = a_registration();
    registration.operation = 4;
    assert_eq!(decode(&bytes_of(&registration)), Err(Malformed::Operation(4)));
    registration.header.kind = 3;
    assert_eq!(decode(&bytes_of(&registration)), Err(Malformed::Kind(3)));
    let mut buffer = a_buffer();
    buffer.walk = 5;
    assert_eq!(decode(&bytes_of(&buffer)), Err(Malformed::Walk(5)));
    buffer.walk = 1;
    buffer.backings[1].kind = Kind(7);
    assert_eq!(decode(&bytes_of(&buffer)), Err(Malformed::Backing(7)));
    let want = size_of::<BufferRecord>();
    let mut long = bytes_of(&a_buffer());
    long.push(0);
    assert_eq!(decode(&long), Err(Malformed::Size { kind: KIND_BUFFER, want, got: want + 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn any_body_of_the_right_size_is_read_or_refused(
        kind in 0_u32..4,
        mut body in prop_oneof![
            prop::collection::vec(any::<u8>(), size_of::<RegistrationRecord>()),
            prop::collection::vec(any::<u8>(), size_of::<BufferRecord>()),
        ],
    ) {
        body[..4].copy_from_slice(&kind.to_ne_bytes());
        let mut assembler = assembler(Capabilities::all());
        let given = assembler.push(&body, &HashMap::<u64, String>::new());
        let counts = assembler.finish();
        prop_assert_eq!(counts.registrations, u64::from(given.is_some()));
        prop_assert_eq!(counts.registrations + counts.orphans + counts.malformed, 1);
        if let Ok(Record::Registration(_, record)) = decode(&body) {
            prop_assert_eq!(bytes_of(&*record), body);
        }
    }

    #[test]
    fn every_buffer_record_ends_in_a_registration_or_as_an_orphan(
        records in prop::collection::vec((any::<bool>(), 0_u32..4, 0_u64..4), 0..200),
        limit in 1_usize..20,
    ) {
        let mut assembler = Assembler::with_limit(Capabilities::all(), Clock::default(), limit);
        let (mut sent, mut used) = (0, 0);
        for (is_buffer, tid, start_ns) in records {
            if is_buffer {
                let mut buffer = a_buffer();
                buffer.header.tid = tid;
                buffer.header.start_ns = start_ns;
                sent += 1;
                assembler.push(&bytes_of(&buffer), &HashMap::<u64, String>::new());
            } else {
                let mut registration = a_registration();
                registration.header.tid = tid;
                registration.header.start_ns = start_ns;
                let given = assembler.push(&bytes_of(&registration), &HashMap::<u64, String>::new()).unwrap();
                prop_assert_eq!((given.tid, given.start_ns), (tid.into(), start_ns));
                used += given.buffer_list.len() as u64;
            }
        }
        prop_assert_eq!(used + assembler.finish().orphans, sent);
    }
}

#[test]
fn a_whole_registration_has_every_figure() {
    let given = whole(Capabilities::all(), &a_registration(), &[a_buffer()]);
    assert_eq!(given.ring, Some(Ring { id: 1, fd: Some(5), age_ns: Some(600_000), flags: Some(2) }));
    assert_eq!((given.duration_ns, given.pin_ns, given.rest_ns), (Some(50_000), Some(40_000), Some(10_000)));
    assert_eq!((given.vmas, given.vmas_complete, given.lookups), (Some(2), true, Some(1)));
    assert_eq!((given.buffers, given.bytes, given.requested), (Some(1), Some(8192), Some(1)));
    assert!(given.degraded.is_empty(), "{:?}", given.degraded);
    let buffer = &given.buffer_list[0];
    assert_eq!(
        (buffer.address.as_str(), buffer.folio_size, buffer.rest_ns),
        ("0x7f0000000000", Some(4096), Some(5_000))
    );
    assert_eq!(buffer.backings[1].filesystem.as_deref(), Some("ext4"));
    assert_eq!(given.backings.len(), 2);
}

#[test]
fn the_keys_are_those_that_are_documented() {
    let given = whole(Capabilities::all(), &a_registration(), &[a_buffer()]);
    let json = serde_json::to_value(&given).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&json),
        "accounting_ns after_ns backings buffer_list buffers bytes bytes_registered call_ns cgroup_id comm degraded duration_ns failed_buffers fault_ns \
         files files_capped lock_acquisitions lock_wait_ns lookup_ns lookups major_faults minor_faults operation pid \
         pin_ns refused requested rest_ns result ret ring start_ns tid time uid vm_files vm_files_capped vmas vmas_complete vmas_repeated \
         wait_ns walk_ns"
    );
    assert_eq!(
        keys(&json["buffer_list"][0]),
        "address backings bvecs duration_ns files files_capped folio_size index length lookups major_faults \
         minor_faults pin_ns registered rest_ns result ret vm_files vm_files_capped vmas walk walk_ns"
    );
    assert_eq!(keys(&json["ring"]), "age_ns fd flags id");
    assert_eq!(keys(&json["backings"][0]), "bytes class filesystem shared vmas writable");
}

#[test]
fn what_no_hook_measures_is_unknown() {
    let capabilities = Capabilities { walk: false, lookups: false, pins: false, ..Capabilities::all() };
    let mut buffer = a_buffer();
    buffer.walk = Walk::None as u8;
    let given = whole(capabilities, &a_registration(), &[buffer]);
    assert_eq!((given.vmas, given.vmas_complete, given.files, given.walk_ns), (None, false, None, None));
    assert_eq!((given.lookups, given.pin_ns, given.rest_ns, given.minor_faults), (None, None, None, None));
    assert_eq!(given.duration_ns, Some(50_000));
    assert!(given.backings.is_empty());
    assert_eq!((given.buffer_list[0].vmas, given.buffer_list[0].pin_ns), (None, None));
}

#[test]
fn a_pin_that_was_not_reached_has_no_time() {
    let mut registration = a_registration();
    registration.flags &= !flag::PINNED;
    registration.ret = -14;
    registration.pin_ns = 0;
    let given = whole(Capabilities::all(), &registration, &[]);
    assert_eq!((given.pin_ns, given.rest_ns, given.result.as_str()), (None, Some(50_000), "EFAULT"));
}

#[test]
fn what_only_the_rules_tell_apart_is_one_backing() {
    let mut buffer = a_buffer();
    let shmem = Kind::new(Class::Shmem, true, true);
    buffer.backings[0] = BackingSlice { filesystem: 0, bytes: 4096, vmas: 1, kind: shmem };
    buffer.backings[1] = BackingSlice { filesystem: 0, bytes: 8192, vmas: 2, kind: shmem.under(Rule::Foreign) };
    let given = whole(Capabilities::all(), &a_registration(), &[buffer]);
    let backings = &given.buffer_list[0].backings;
    assert_eq!((backings.len(), backings[0].vmas, backings[0].bytes), (1, 3, 12_288));
}

#[test]
fn missed_parts_are_unknown_and_said() {
    let mut registration = a_registration();
    registration.flags |= flag::PARTS_MISSED;
    let mut buffer = a_buffer();
    buffer.flags |= flag::PARTS_MISSED;
    let given = whole(Capabilities::all(), &registration, &[buffer]);
    assert_eq!((given.pin_ns, given.rest_ns, given.failed_buffers), (None, None, None));
    let told = &given.buffer_list[0];
    assert_eq!(
        (told.result.as_deref(), told.duration_ns, told.pin_ns, told.rest_ns),
        (Some("ok"), Some(45_000), None, None)
    );
    assert_eq!(given.bytes, Some(8192));
    assert_eq!(whole(Capabilities::all(), &registration, &[]).bytes, None);
    assert_eq!(given.degraded.len(), 1);
}

#[test]
fn a_call_refused_early_has_no_figures() {
    let mut registration = a_registration();
    registration.flags = flag::REFUSED_EARLY;
    registration.ret = -22;
    registration.ring = 0;
    let given = whole(Capabilities::all(), &registration, &[]);
    assert_eq!((given.result.as_str(), given.pid, given.comm.as_str()), ("EINVAL", 11.into(), "fio"));
    assert_eq!((given.ring, given.buffers, given.bytes, given.vmas), (None, None, None, None));
    assert_eq!((given.duration_ns, given.requested), (None, None));
    assert_eq!(given.degraded.len(), 1);
}

#[test]
fn a_partial_update_names_the_buffer_at_which_it_stopped() {
    let mut registration = a_registration();
    registration.operation = Operation::Update as u8;
    registration.flags |= flag::PARTIAL;
    (registration.ret, registration.requested, registration.buffers) = (1, 3, 2);
    let mut refused = a_buffer();
    (refused.index, refused.ret) = (1, -14);
    let given = whole(Capabilities::all(), &registration, &[a_buffer(), refused]);
    assert_eq!((given.result.as_str(), given.ret, given.requested, given.is_short()), ("partial", 1, Some(3), true));
    assert_eq!(given.refused, Some(Refused { index: 1, result: Some("EFAULT".to_owned()) }));
    // The list itself could not be read, or the size was refused before the function.
    let given = whole(Capabilities::all(), &registration, &[a_buffer()]);
    assert_eq!(given.refused, Some(Refused { index: 1, result: None }));
    registration.flags &= !flag::PARTIAL;
    assert!(!whole(Capabilities::all(), &registration, &[a_buffer()]).is_short());
}

#[test]
fn a_refused_register_names_the_buffer_that_was_refused() {
    let mut registration = a_registration();
    (registration.ret, registration.buffers) = (-14, 2);
    let mut refused = a_buffer();
    (refused.index, refused.ret) = (1, -14);
    let given = whole(Capabilities::all(), &registration, &[a_buffer(), refused]);
    assert_eq!(given.refused, Some(Refused { index: 1, result: Some("EFAULT".to_owned()) }));
    assert!(given.is_short());
    assert_eq!(whole(Capabilities::all(), &registration, &[]).refused, None);
}

#[test]
fn a_clone_hands_no_buffers_to_the_per_buffer_function() {
    let mut registration = a_registration();
    registration.operation = Operation::Clone as u8;
    let given = whole(Capabilities::all(), &registration, &[]);
    assert_eq!((given.buffers, given.bytes, given.vmas, given.pin_ns), (None, None, None, None));
    assert_eq!(given.duration_ns, Some(50_000));
}

#[test]
fn that_no_vma_was_seen_is_a_figure_only_after_a_walk() {
    let mut registration = a_registration();
    let mut buffer = a_buffer();
    registration.flags |= flag::VMAS_PARTIAL;
    let vmas = |registration: &RegistrationRecord, buffer: &BufferRecord| {
        let given = whole(Capabilities::all(), registration, &[*buffer]);
        (given.vmas, given.vmas_complete)
    };
    buffer.walk = Walk::Busy as u8;
    assert_eq!(vmas(&registration, &buffer), (Some(2), false));
    registration.vmas = 0;
    assert_eq!(vmas(&registration, &buffer), (None, false));
    buffer.walk = Walk::Hole as u8;
    assert_eq!(vmas(&registration, &buffer), (Some(0), true));
}

#[test]
fn a_walk_that_ended_early_says_bounds_or_unknown() {
    let mut registration = RegistrationRecord { buffers: 2, ..a_registration() };
    registration.flags |= flag::VMAS_PARTIAL;
    let blind = BufferRecord { walk: Walk::Busy as u8, vmas: 0, ..a_buffer() };
    let told = |registration: &RegistrationRecord, first: BufferRecord| {
        let given = whole(Capabilities::all(), registration, &[first, blind]);
        (given.vmas, given.degraded)
    };
    let early = "a walk ended early, since a writer held mmap_lock: VMAs, files and backings are";
    assert_eq!(told(&registration, a_buffer()), (Some(2), vec![format!("{early} lower bounds")]));
    registration.vmas = 0;
    assert_eq!(told(&registration, blind), (None, vec![format!("{early} unknown")]));
}

#[test]
fn a_walk_is_complete_at_a_hole_and_over_empty_slots() {
    let mut registration = a_registration();
    registration.flags |= flag::VMAS_PARTIAL;
    registration.buffers = 2;
    let empty = BufferRecord { address: 0, length: 0, walk: Walk::None as u8, ..a_buffer() };
    let unwalked = BufferRecord { walk: Walk::None as u8, ..a_buffer() };
    let hole = BufferRecord { walk: Walk::Hole as u8, ..a_buffer() };
    for (second, complete) in [(empty, true), (hole, true), (unwalked, false)] {
        let given = whole(Capabilities::all(), &registration, &[a_buffer(), second]);
        assert_eq!((given.vmas_complete, given.degraded.is_empty()), (complete, complete), "{:?}", given.degraded);
    }
    assert!(!whole(Capabilities::all(), &registration, &[a_buffer()]).vmas_complete);
}

#[test]
fn buffer_records_that_did_not_come_are_said() {
    let mut registration = a_registration();
    registration.buffers = 3;
    let given = whole(Capabilities::all(), &registration, &[a_buffer()]);
    assert_eq!(given.degraded, ["2 of 3 buffer records did not come: backings are lower bounds"]);
}

#[test]
fn rings_get_numbers_and_an_address_used_again_another() {
    let mut assembler = assembler(Capabilities::all());
    let mut number = |ring: u64, created: u64| {
        let record = RegistrationRecord { ring, ring_created_ns: created, ..a_registration() };
        assembler.push(&bytes_of(&record), &HashMap::<u64, String>::new()).unwrap().ring.unwrap().id
    };
    assert_eq!([number(7, 1), number(8, 2), number(7, 1), number(7, 3)], [1, 2, 1, 3]);
}
