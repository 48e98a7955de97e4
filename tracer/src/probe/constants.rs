//! The settings, put into the programs' instructions before they are loaded: see [`tracer_ebpf::settings`].

use object::{Object as _, ObjectSection as _, SectionKind};
use tracer_ebpf::settings::{Settings, marked};

use super::object::ObjectError;

/// Bytes of an instruction (`struct bpf_insn`): code, registers, offset (2), immediate (4).
const INSTRUCTION: usize = 8;
/// `BPF_LD | BPF_DW | BPF_IMM`: takes two places.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_ALU64 | BPF_MOV | BPF_K`, whose immediate is extended by its sign.
const MOVE_WIDE: u8 = 0xb7;
/// `BPF_ALU | BPF_MOV | BPF_K`: the upper half becomes zero.
const MOVE: u8 = 0xb4;

/// Puts the value of each setting in the place of its mark.
///
/// # Errors
/// The object has no marks, or one of no setting.
pub fn put(object: &mut [u8], settings: &Settings) -> Result<(), ObjectError> {
    let mut found = 0;
    for (start, size) in code(object)? {
        let section =
            object.get_mut(start..start + size).ok_or(ObjectError::Unexpected("its code lies outside the file"))?;
        found += put_into(section, bytes(settings))?;
    }
    if found == 0 { Err(ObjectError::Unexpected("it asks for no settings")) } else { Ok(()) }
}

/// Where the sections with instructions lie.
fn code(object: &[u8]) -> Result<Vec<(usize, usize)>, ObjectError> {
    let file = object::File::parse(object).map_err(|_| ObjectError::Unexpected("it is no ELF file"))?;
    let sections = file.sections().filter(|section| section.kind() == SectionKind::Text);
    Ok(sections.filter_map(|section| section.file_range()).map(|(at, size)| (at as usize, size as usize)).collect())
}

/// How many marks there were.
fn put_into(code: &mut [u8], settings: &[u8]) -> Result<usize, ObjectError> {
    let mut found = 0;
    let mut instructions = code.as_chunks_mut::<INSTRUCTION>().0.iter_mut();
    while let Some([code, _, _, _, immediate @ ..]) = instructions.next() {
        match *code {
            LOAD_WIDE => drop(instructions.next()),
            MOVE_WIDE => {
                let Some((offset, size)) = marked(i32::from_le_bytes(*immediate)) else { continue };
                let value = settings.get(offset..offset + size);
                let value = value.ok_or(ObjectError::Unexpected("it asks for a setting that is none"))?;
                immediate.fill(0);
                immediate[..size].copy_from_slice(value);
                *code = MOVE;
                found += 1;
            }
            _ => {}
        }
    }
    Ok(found)
}

fn bytes(settings: &Settings) -> &[u8] {
    // SAFETY: `repr(C)` over integers and arrays of them, without padding, which outlives the slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(settings).cast(), size_of::<Settings>()) }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use tracer_ebpf::settings::mark;

    use super::*;

    fn instruction(code: u8, immediate: i32) -> [u8; INSTRUCTION] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [code, 1, 0, 0, a, b, c, d]
    }

    #[test]
    fn a_mark_becomes_the_setting_and_nothing_else_does() {
        let mut settings = Settings::ZERO;
        settings.session.uid = u32::MAX;
        settings.kernel.page_shift = 14;
        let uid = mark(offset_of!(Settings, session.uid), 4);
        let shift = mark(offset_of!(Settings, kernel.page_shift), 1);
        let kept = [
            instruction(LOAD_WIDE, uid),
            // The upper half of the load.
            instruction(0, uid),
            instruction(LOAD_WIDE, 0),
            instruction(MOVE_WIDE, uid),
            instruction(MOVE_WIDE, 7),
        ];
        let mut code = [&kept[..], &[instruction(MOVE_WIDE, uid), instruction(MOVE_WIDE, shift)]].concat().concat();
        assert_eq!(put_into(&mut code, bytes(&settings)).ok(), Some(2));
        let put = [instruction(MOVE, -1), instruction(MOVE, 14)];
        assert_eq!(code, [&kept[..], &put[..]].concat().concat());
    }

    #[test]
    fn a_mark_of_no_setting_is_no_setting() {
        let mut code = instruction(MOVE_WIDE, mark(size_of::<Settings>(), 1));
        assert!(put_into(&mut code, bytes(&Settings::ZERO)).is_err());
    }
}
