//! bpf(2) itself, for what the library does not have: programs and links of kprobe.multi, through which fprobe calls a
//! program at a function's entry or return (since 5.18, where the kernel has `CONFIG_FPROBE`); iterators over the entries of a map and over
//! tasks (5.8, 5.9); and programs of ours that are run on the spot.

pub mod clock;
pub mod entries;
pub mod fdinfo;
pub mod mapped;
pub mod read;

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, ErrorKind},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::{
    programs::{ProgramError, ProgramType},
    sys::is_program_supported,
};
use aya_obj::{
    Function,
    generated::{
        BPF_F_KPROBE_MULTI_RETURN,
        bpf_attach_type::{BPF_TRACE_ITER, BPF_TRACE_KPROBE_MULTI},
        bpf_attr, bpf_cmd, bpf_insn,
        bpf_prog_type::{BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACING},
    },
};

use crate::human;

/// What the verifier may write at most.
const LOG: usize = 1 << 20;

/// A program to load.
pub struct Program<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its licence.
    pub license: &'a CStr,
    /// Instructions, with maps and calls in place, and the information on its functions.
    pub function: &'a Function,
    /// The object's types.
    pub types: Option<BorrowedFd<'a>>,
}

/// The kernel refused a program.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// How.
    pub error: io::Error,
    /// What the verifier said.
    pub log: String,
}

/// Loads the types of an object.
///
/// # Errors
/// The kernel refuses.
pub fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    // SAFETY: the union is of integers: any bytes are a value of each member.
    let load = unsafe { &mut attributes.__bindgen_anon_7 };
    load.btf = types.as_ptr().expose_provenance() as u64;
    load.btf_size = types.len() as u32;
    call(bpf_cmd::BPF_BTF_LOAD, &mut attributes)
}

/// Loads a program for [`link`]; asks for the verifier's words only where it refuses.
///
/// # Errors
/// The kernel refuses.
pub fn load(program: &Program<'_>) -> Result<OwnedFd, Refused> {
    try_load(program, &mut []).or_else(|_| {
        let mut log = vec![0; LOG];
        try_load(program, &mut log).map_err(|error| Refused { error, log: human::field(&log).into_owned() })
    })
}

fn try_load(program: &Program<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let Function { instructions, func_info, line_info, func_info_rec_size, line_info_rec_size, .. } = program.function;
    let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
    let mut attributes = program_of(KPROBE_MULTI, instructions, program.license);
    // SAFETY: as in `load_types`.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    for (place, byte) in load.prog_name.iter_mut().zip(program.name.bytes().take(NAME)) {
        *place = byte.cast_signed();
    }
    if let Some(types) = program.types {
        load.prog_btf_fd = types.as_raw_fd().cast_unsigned();
        if *func_info_rec_size > 0 {
            load.func_info = functions.as_ptr().expose_provenance() as u64;
            load.func_info_cnt = func_info.len() as u32;
            load.func_info_rec_size = *func_info_rec_size as u32;
        }
        if *line_info_rec_size > 0 {
            load.line_info = lines.as_ptr().expose_provenance() as u64;
            load.line_info_cnt = line_info.len() as u32;
            load.line_info_rec_size = *line_info_rec_size as u32;
        }
    }
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr().expose_provenance() as u64;
        load.log_size = log.len() as u32;
    }
    call(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

/// Whether the kernel takes programs of trampolines: loads and attaches an empty one, and takes it away again.
///
/// # Errors
/// It was refused otherwise, in one line.
pub fn has_trampolines() -> Result<bool, String> {
    is_program_supported(ProgramType::Tracing).map_err(|error| match error {
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        error => error.to_string(),
    })
}

/// Bytes of a program's name that the kernel keeps, without the zero.
const NAME: usize = 15;

/// Type and expected type of attachment of programs.
type Kind = (u32, u32);
const KPROBE_MULTI: Kind = (BPF_PROG_TYPE_KPROBE as u32, BPF_TRACE_KPROBE_MULTI as u32);
const ITERATOR: Kind = (BPF_PROG_TYPE_TRACING as u32, BPF_TRACE_ITER as u32);
const RAW_TRACEPOINT: Kind = (BPF_PROG_TYPE_RAW_TRACEPOINT as u32, 0);

fn program_of((kind, attachment): Kind, instructions: &[bpf_insn], license: &CStr) -> bpf_attr {
    let mut attributes = zeroed();
    // SAFETY: as in `load_types`.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = kind;
    load.expected_attach_type = attachment;
    load.insns = instructions.as_ptr().expose_provenance() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr().expose_provenance() as u64;
    attributes
}

/// Where a function calls a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its entry.
    Entry,
    /// At its return.
    Return,
}

/// Attaches a program to a function; what is given back holds it there.
///
/// # Errors
/// The kernel refuses, or has no such function.
pub fn link(program: BorrowedFd<'_>, function: &str, place: Place) -> io::Result<OwnedFd> {
    let name = CString::new(function)?;
    let names = [name.as_ptr()];
    link_to(program, &names, place)
}

fn link_to(program: BorrowedFd<'_>, names: &[*const std::ffi::c_char], place: Place) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    // SAFETY: as in `load_types`.
    let create = unsafe { &mut attributes.link_create };
    create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    create.attach_type = BPF_TRACE_KPROBE_MULTI as u32;
    // SAFETY: as in `load_types`.
    let multi = unsafe { &mut create.__bindgen_anon_3.kprobe_multi };
    multi.flags = if place == Place::Return { BPF_F_KPROBE_MULTI_RETURN } else { 0 };
    multi.cnt = names.len() as u32;
    multi.syms = names.as_ptr().expose_provenance() as u64;
    call(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// Whether the kernel makes such links: it is asked for one to no function, which it refuses in any case, and first of all
/// where it has none.
///
/// # Errors
/// It refuses the program.
pub fn has_links() -> io::Result<bool> {
    let instructions = [set(R0, 0), exit()];
    let program = match call(bpf_cmd::BPF_PROG_LOAD, &mut program_of(KPROBE_MULTI, &instructions, c"GPL")) {
        // The kernel does not know the kind of program.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
        loaded => loaded?,
    };
    match link_to(program.as_fd(), &[], Place::Entry) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// The function whose number among the kernel's types an iterator over the entries of a map is made by (5.9).
pub const MAP_ENTRIES: &str = "bpf_iter_bpf_map_elem";

/// Loads a program that writes each entry of a map for who reads the iterator: its key and its value, of so many bytes. `function` is the
/// number of [`MAP_ENTRIES`].
///
/// ```c
/// struct bpf_iter__bpf_map_elem { struct bpf_iter_meta *meta; struct bpf_map *map; void *key; void *value; };
/// struct bpf_iter_meta { struct seq_file *seq; ... };
/// ```
///
/// # Errors
/// The kernel refuses.
pub fn load_writer(function: u32, key: usize, value: usize) -> io::Result<OwnedFd> {
    let size = |bytes: usize| i32::try_from(bytes).map_err(io::Error::other);
    let instructions = [
        copy(R6, R1),
        fetch(R7, R6, 16),
        // At the end there is neither.
        jump_if_zero(R7, 12),
        fetch(R8, R6, 24),
        jump_if_zero(R8, 10),
        fetch(R1, R6, 0),
        fetch(R9, R1, 0),
        copy(R1, R9),
        copy(R2, R7),
        set(R3, size(key)?),
        call_helper(BPF_FUNC_SEQ_WRITE),
        copy(R1, R9),
        copy(R2, R8),
        set(R3, size(value)?),
        call_helper(BPF_FUNC_SEQ_WRITE),
        set(R0, 0),
        exit(),
    ];
    load_iterator(function, &instructions)
}

/// The function whose number among the kernel's types an iterator over all tasks is made by (5.8). It shows those of the PID namespace
/// of who makes it.
pub const TASKS: &str = "bpf_iter_task";

/// Loads a program that writes a byte for each task that has something in `storage` (5.12): the one at `told`, where the four at `asked`
/// are not 0. `function` is the number of [`TASKS`].
///
/// ```c
/// struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; };
/// ```
///
/// # Errors
/// The kernel refuses.
pub fn load_storage_writer(function: u32, storage: BorrowedFd<'_>, asked: usize, told: usize) -> io::Result<OwnedFd> {
    let place = |bytes: usize| i16::try_from(bytes).map_err(io::Error::other);
    let [map, rest] = load_map(storage);
    let instructions = [
        copy(R6, R1),
        fetch(R7, R6, 8),
        // At the end there is none.
        jump_if_zero(R7, 17),
        map,
        rest,
        copy(R2, R7),
        set(R3, 0),
        set(R4, 0),
        call_helper(BPF_FUNC_TASK_STORAGE_GET),
        jump_if_zero(R0, 10),
        fetch_word(R1, R0, place(asked)?),
        jump_if_zero(R1, 8),
        fetch_byte(R1, R0, place(told)?),
        store(R10, -8, R1),
        fetch(R1, R6, 0),
        fetch(R1, R1, 0),
        copy(R2, R10),
        add(R2, -8),
        set(R3, 1),
        call_helper(BPF_FUNC_SEQ_WRITE),
        set(R0, 0),
        exit(),
    ];
    load_iterator(function, &instructions)
}

fn load_iterator(function: u32, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    let mut attributes = program_of(ITERATOR, instructions, c"GPL");
    // SAFETY: as in `load_types`.
    unsafe { &mut attributes.__bindgen_anon_3 }.attach_btf_id = function;
    call(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

/// Attaches a program to an iterator, over a map's entries if there is one.
///
/// # Errors
/// The kernel refuses.
pub fn link_iterator(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`.
    let info = map.map_or(0, |map| map.as_raw_fd().cast_unsigned());
    let mut attributes = zeroed();
    // SAFETY: as in `load_types`.
    let create = unsafe { &mut attributes.link_create };
    create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    create.attach_type = BPF_TRACE_ITER as u32;
    if map.is_some() {
        // SAFETY: as in `load_types`.
        let iterator = unsafe { &mut create.__bindgen_anon_3.__bindgen_anon_1 };
        iterator.iter_info = (&raw const info).expose_provenance() as u64;
        iterator.iter_info_len = size_of_val(&info) as u32;
    }
    call(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// One pass of an iterator, to be read to its end.
pub struct Pass<R = File> {
    from: R,
    /// Stops that are left to it: the kernel makes one after a million objects for which the program wrote nothing.
    stops: u32,
}

impl Pass {
    /// Begins one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin(link: BorrowedFd<'_>) -> io::Result<Self> {
        let mut attributes = zeroed();
        // SAFETY: as in `load_types`.
        unsafe { &mut attributes.iter_create }.link_fd = link.as_raw_fd().cast_unsigned();
        Ok(Self { from: call(bpf_cmd::BPF_ITER_CREATE, &mut attributes)?.into(), stops: u32::MAX })
    }

    /// Ends it, as an error, after so many million objects for which the program wrote nothing.
    #[must_use]
    pub fn at_most(self, millions: u32) -> Self {
        Self { stops: millions, ..self }
    }
}

impl<R: io::Read> Pass<R> {
    /// Reads more of what the program wrote; 0 at the end.
    ///
    /// # Errors
    /// The kernel refuses, or there are more objects than were to be looked at.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.from.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It continues when asked again.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.stops > 0 => self.stops -= 1,
                read => return read,
            }
        }
    }
}

/// Loads a program that removes from two maps, by a key of 8 bytes each, what [`remove`] says.
///
/// # Errors
/// The kernel refuses.
pub fn load_remover(maps: [BorrowedFd<'_>; 2]) -> io::Result<OwnedFd> {
    let [first, second] = maps.map(load_map);
    let instructions = [
        copy(R6, R1),
        fetch(R1, R6, 0),
        store(R10, -8, R1),
        first[0],
        first[1],
        copy(R2, R10),
        add(R2, -8),
        call_helper(BPF_FUNC_MAP_DELETE_ELEM),
        copy(R7, R0),
        fetch(R1, R6, 8),
        store(R10, -8, R1),
        second[0],
        second[1],
        copy(R2, R10),
        add(R2, -8),
        call_helper(BPF_FUNC_MAP_DELETE_ELEM),
        copy(R0, R7),
        exit(),
    ];
    call(bpf_cmd::BPF_PROG_LOAD, &mut program_of(RAW_TRACEPOINT, &instructions, c"GPL"))
}

/// Removes the entries of these keys, by a program of [`load_remover`]; whether the first map had one and has not now.
///
/// # Errors
/// The kernel refuses to run it (before 5.10).
pub fn remove(program: BorrowedFd<'_>, keys: [u64; 2]) -> io::Result<bool> {
    test_run(program, keys).map(|answer| answer == 0)
}

/// Runs a program with these arguments; what it returns, of which the kernel gives 32 bits.
fn test_run(program: BorrowedFd<'_>, arguments: [u64; 2]) -> io::Result<u32> {
    let mut attributes = zeroed();
    // SAFETY: as in `load_types`.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = program.as_raw_fd().cast_unsigned();
    test.ctx_in = (&raw const arguments).expose_provenance() as u64;
    test.ctx_size_in = size_of_val(&arguments) as u32;
    // SAFETY: the attributes are whole, and what they point to lives longer than the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN as libc::c_long,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as in `load_types`.
    Ok(unsafe { attributes.test }.retval)
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;
const R9: u8 = 9;
const R10: u8 = 10;

/// `enum bpf_func_id`.
const BPF_FUNC_MAP_DELETE_ELEM: i32 = 3;
const BPF_FUNC_KTIME_GET_NS: i32 = 5;
const BPF_FUNC_SEQ_WRITE: i32 = 127;
const BPF_FUNC_TASK_STORAGE_GET: i32 = 156;

/// `r[to] = r[from]`.
fn copy(to: u8, from: u8) -> bpf_insn {
    instruction(0xbf, to, from, 0, 0)
}

/// `r[to] = value`.
fn set(to: u8, value: i32) -> bpf_insn {
    instruction(0xb7, to, 0, 0, value)
}

/// `r[to] += value`.
fn add(to: u8, value: i32) -> bpf_insn {
    instruction(0x07, to, 0, 0, value)
}

/// `r[to] -= r[from]`.
fn subtract(to: u8, from: u8) -> bpf_insn {
    instruction(0x1f, to, from, 0, 0)
}

/// `r[to] >>= r[from]`.
fn shift_right(to: u8, from: u8) -> bpf_insn {
    instruction(0x7f, to, from, 0, 0)
}

/// `r[to] = *(u64 *)(r[from] + offset)`.
fn fetch(to: u8, from: u8, offset: i16) -> bpf_insn {
    instruction(0x79, to, from, offset, 0)
}

/// `r[to] = *(u32 *)(r[from] + offset)`.
fn fetch_word(to: u8, from: u8, offset: i16) -> bpf_insn {
    instruction(0x61, to, from, offset, 0)
}

/// `r[to] = *(u8 *)(r[from] + offset)`.
fn fetch_byte(to: u8, from: u8, offset: i16) -> bpf_insn {
    instruction(0x71, to, from, offset, 0)
}

/// `*(u64 *)(r[to] + offset) = r[from]`.
fn store(to: u8, offset: i16, from: u8) -> bpf_insn {
    instruction(0x7b, to, from, offset, 0)
}

/// `if (r[register] == 0) goto +offset`.
fn jump_if_zero(register: u8, offset: i16) -> bpf_insn {
    instruction(0x15, register, 0, offset, 0)
}

fn call_helper(number: i32) -> bpf_insn {
    instruction(0x85, 0, 0, 0, number)
}

/// `r1 = map`.
fn load_map(map: BorrowedFd<'_>) -> [bpf_insn; 2] {
    const BPF_PSEUDO_MAP_FD: u8 = 1;
    [instruction(0x18, R1, BPF_PSEUDO_MAP_FD, 0, map.as_raw_fd()), instruction(0, 0, 0, 0, 0)]
}

fn exit() -> bpf_insn {
    instruction(0x95, 0, 0, 0, 0)
}

fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off, imm }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of structs of integers, for which zeros are a value.
    unsafe { std::mem::zeroed() }
}

/// Makes a call whose answer is a descriptor.
fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are whole, and what they point to is borrowed for longer than the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attributes, size_of::<bpf_attr>()) };
    match i32::try_from(answer) {
        // SAFETY: the call made the descriptor, and nobody else has it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel answers, in turn.
    struct Answers(Vec<Result<usize, ErrorKind>>);

    impl io::Read for Answers {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.remove(0).map_err(io::Error::from)
        }
    }

    #[test]
    fn a_pass_goes_on_where_the_kernel_stops() {
        use ErrorKind::{Interrupted, PermissionDenied, WouldBlock};
        let answers = [Err(WouldBlock), Err(Interrupted), Ok(8), Err(WouldBlock), Err(WouldBlock), Ok(0)];
        let mut pass = Pass { from: Answers(answers.to_vec()), stops: u32::MAX };
        assert_eq!(pass.read(&mut [0; 8]).unwrap(), 8);
        assert_eq!(pass.read(&mut [0; 8]).unwrap(), 0);
        let mut pass = Pass { from: Answers(vec![Err(PermissionDenied)]), stops: u32::MAX };
        assert_eq!(pass.read(&mut [0; 8]).unwrap_err().kind(), PermissionDenied);
    }

    #[test]
    fn a_pass_ends_after_so_many_stops() {
        use ErrorKind::{Interrupted, WouldBlock};
        let mut answers = vec![Err(WouldBlock); 3];
        answers.splice(1..1, vec![Err(Interrupted); 9]);
        let mut pass = Pass { from: Answers(answers), stops: 2 };
        assert_eq!(pass.read(&mut [0; 8]).unwrap_err().kind(), WouldBlock);
    }
}
