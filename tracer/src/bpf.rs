//! bpf(2) itself, for what the library does not have: programs and links of kprobe.multi, through which fprobe calls a
//! program at a function's entry or return (since 5.18, where the kernel has `CONFIG_FPROBE`).

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::{
    Function,
    generated::{
        BPF_F_KPROBE_MULTI_RETURN, bpf_attach_type::BPF_TRACE_KPROBE_MULTI, bpf_attr, bpf_cmd, bpf_insn,
        bpf_prog_type::BPF_PROG_TYPE_KPROBE,
    },
};

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
        try_load(program, &mut log).map_err(|error| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let said = log.get(..end).unwrap_or_default();
            Refused { error, log: String::from_utf8_lossy(said).into_owned() }
        })
    })
}

fn try_load(program: &Program<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let Function { instructions, func_info, line_info, func_info_rec_size, line_info_rec_size, .. } = program.function;
    let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
    let mut attributes = program_of(instructions, program.license);
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

/// Bytes of a program's name that the kernel keeps, without the zero.
const NAME: usize = 15;

fn program_of(instructions: &[bpf_insn], license: &CStr) -> bpf_attr {
    let mut attributes = zeroed();
    // SAFETY: as in `load_types`.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = BPF_TRACE_KPROBE_MULTI as u32;
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
    // mov64 r0, 0; exit
    let instructions = [instruction(0xb7), instruction(0x95)];
    let program = match call(bpf_cmd::BPF_PROG_LOAD, &mut program_of(&instructions, c"GPL")) {
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

fn instruction(code: u8) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(0, 0), off: 0, imm: 0 }
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
