//! The eBPF object, and what is changed in it before it is loaded.
//!
//! - Programs that the plan does not hook are left out, and the lines of source for the verifier's log where nobody is to see
//!   that: the library would parse them for each program, which took more memory than all else at a start.
//! - Kernels before 5.12 have no task storage that tracing programs can use, and refuse to create such a map. There
//!   `FRAMES` takes the definition of `FRAMES_BY_TID`, a hash map under the thread's id. A map's definition is a BTF struct
//!   whose members' types stand for the values, so the change is five type ids in the section `.BTF`.
//! - Older kernels take no pointers in functions that they check apart from their callers; all with such storage do. On the
//!   others all functions are made static, and checked anew at each call.

use std::ffi::c_void;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind, elf};
use rustix::mm::{Advice, madvise};

use crate::kernel::{
    self,
    btf::layout::{COMMON, Common, Header, Kind},
};

/// The object as it was built, empty where the eBPF toolchain was missing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pinscope-ebpf"));

/// Why there is no object to load.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Built on a machine without the eBPF toolchain.
    #[error(
        "this pinscope was built without its eBPF programs, since the toolchain for them was missing; run `cargo xtask setup` and build again"
    )]
    Missing,
    /// The change did not find what it changes.
    #[error("the eBPF object is not as expected: {0}")]
    Unexpected(&'static str),
}

/// What a session wants of the object.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For a kernel without task storage for tracing programs: the frames in a hash map, and no global functions.
    pub legacy: bool,
    /// The programs to keep, by name.
    pub programs: &'a [&'a str],
    /// Whether to keep the lines of source, which the verifier's log shows.
    pub lines: bool,
}

/// The object as it is to be loaded.
pub fn object(wanted: Wanted<'_>) -> Result<Vec<u8>, ObjectError> {
    if OBJECT.is_empty() {
        return Err(ObjectError::Missing);
    }
    let mut object = OBJECT.to_vec();
    leave_out_programs(&mut object, wanted.programs)?;
    if !wanted.lines {
        leave_out_lines(section_of(&mut object, ".BTF.ext")?)?;
    }
    if wanted.legacy {
        let section = section_of(&mut object, ".BTF")?;
        let btf = Btf::parse(section).ok_or(ObjectError::Unexpected("its section .BTF cannot be read"))?;
        redefine(section, &btf, "FRAMES", "FRAMES_BY_TID")?;
        btf.make_functions_static(section);
    }
    Ok(object)
}

/// How many maps are made of the object: those that it declares, and one for each section of globals.
pub fn maps() -> usize {
    let Ok(file) = object::File::parse(OBJECT) else { return 0 };
    // The library's own have the older form of a declaration.
    let declared = [".maps", "maps"].map(|name| file.section_by_name(name).map(|section| section.index()));
    let is_declared = |symbol: &object::Symbol<'_, '_>| {
        symbol.section_index().is_some_and(|section| declared.contains(&Some(section)))
    };
    let declared = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Data && is_declared(symbol));
    let globals = |name: &str| [".rodata", ".data", ".bss"].iter().any(|kind| name.starts_with(kind));
    let globals = file.sections().filter(|section| section.name().is_ok_and(globals));
    declared.count() + globals.count()
}

/// Makes functions of no symbols' kind out of the programs that are not kept: the library takes functions for programs.
fn leave_out_programs(object: &mut [u8], kept: &[&str]) -> Result<(), ObjectError> {
    const ENTRY: usize = size_of::<elf::Sym64<object::LittleEndian>>();
    /// Position of `st_info` in a symbol.
    const INFO: usize = 4;
    let places = {
        let file = object::File::parse(&*object).map_err(|_| ObjectError::Unexpected("it is no ELF file"))?;
        let table = file
            .section_by_name(".symtab")
            .and_then(|section| section.file_range())
            .ok_or(ObjectError::Unexpected("it has no section .symtab"))?;
        let text = file.section_by_name(".text").map(|section| section.index());
        let left_out = file.symbols().filter(|symbol| {
            symbol.kind() == SymbolKind::Text
                && symbol.section_index() != text
                && !symbol.name().is_ok_and(|name| kept.contains(&name))
        });
        left_out.map(|symbol| table.0 as usize + symbol.index().0 * ENTRY + INFO).collect::<Vec<_>>()
    };
    for place in places {
        let info = object.get_mut(place).ok_or(ObjectError::Unexpected("its symbols lie outside the file"))?;
        *info = *info & 0xf0 | elf::STT_NOTYPE;
    }
    Ok(())
}

/// Sets `line_info_len` of a section `.BTF.ext` to 0 (`include/uapi/linux/btf.h`).
fn leave_out_lines(section: &mut [u8]) -> Result<(), ObjectError> {
    const LENGTH: std::ops::Range<usize> = 20..24;
    section.get_mut(LENGTH).ok_or(ObjectError::Unexpected("its section .BTF.ext has no header"))?.fill(0);
    Ok(())
}

fn section_of<'a>(object: &'a mut [u8], name: &'static str) -> Result<&'a mut [u8], ObjectError> {
    let missing = || ObjectError::Unexpected("a section for its types is missing");
    let range = object::File::parse(&*object)
        .ok()
        .and_then(|file| file.section_by_name(name).and_then(|section| section.file_range()));
    let (offset, size) = range.ok_or_else(missing)?;
    object.get_mut(offset as usize..(offset + size) as usize).ok_or_else(missing)
}

/// Lets go of the object's pages in this process, once it is loaded: they are read from the file again where they are
/// wanted.
pub fn forget() {
    let page = kernel::page_size() as usize;
    let range = OBJECT.as_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(page), range.end as usize / page * page);
    if start < end {
        // SAFETY: whole pages of a constant: mapped from the file, never written to, so that they come back as they were.
        let let_go = unsafe { madvise(start as *mut c_void, end - start, Advice::LinuxDontNeed) };
        if let Err(error) = let_go {
            tracing::debug!("the object's pages stay: {error}");
        }
    }
}

/// Gives the map `target` the definition of the map `template`.
fn redefine(section: &mut [u8], btf: &Btf, target: &str, template: &str) -> Result<(), ObjectError> {
    let from = btf.members_of(section, template).ok_or(ObjectError::Unexpected("a map's definition is missing"))?;
    let to = btf.members_of(section, target).ok_or(ObjectError::Unexpected("a map's definition is missing"))?;
    if from.len() != to.len() {
        return Err(ObjectError::Unexpected("two maps' definitions differ in their members"));
    }
    for (from, to) in from.into_iter().zip(to) {
        section.copy_within(from..from + 4, to);
    }
    Ok(())
}

/// Where the types lie in a section `.BTF`, and their names.
struct Btf {
    /// Position of each type with its first words, by its id; id 0 is `void`.
    types: Vec<(usize, Option<Common>)>,
    /// Position of the strings.
    strings: usize,
}

impl Btf {
    fn parse(section: &[u8]) -> Option<Self> {
        let header = Header::parse(section).ok()?;
        let mut types = vec![(0, None)];
        let mut position = usize::try_from(header.types).ok()?;
        let end = position + header.types_len as usize;
        while position < end {
            let common = Common::parse(section.get(position..)?).ok()?;
            types.push((position, Some(common)));
            position += COMMON + 4 * common.tail;
        }
        Some(Self { types, strings: usize::try_from(header.strings).ok()? })
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (usize, Common)> {
        let types = self.types.iter().filter_map(|(position, common)| Some((*position, (*common)?)));
        types.filter(move |(_, common)| common.kind == kind)
    }

    /// The positions of the members' type ids of a map's definition.
    fn members_of(&self, section: &[u8], variable: &str) -> Option<Vec<usize>> {
        let named = |(_, var): &(usize, Common)| self.name(section, var.name) == Some(variable.as_bytes());
        let (_, var) = self.of_kind(Kind::Var).find(named)?;
        let (definition, common) = *self.types.get(var.word as usize)?;
        let members = common.filter(|common| common.kind == Kind::Struct)?.tail / 3;
        Some((0..members).map(|member| definition + COMMON + member * 12 + 4).collect())
    }

    /// Sets the linkage of every function, which stands where other types have the number of their members.
    fn make_functions_static(&self, section: &mut [u8]) {
        for (position, _) in self.of_kind(Kind::Func) {
            section[position + 4..position + 6].fill(0);
        }
    }

    fn name<'a>(&self, section: &'a [u8], name: u32) -> Option<&'a [u8]> {
        section.get(self.strings + name as usize..)?.split(|byte| *byte == 0).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::layout;

    #[test]
    fn the_frames_take_the_definition_of_the_hash_map() {
        let wanted = Wanted { legacy: false, programs: &[], lines: true };
        let Ok(original) = object(wanted) else {
            // Built without the toolchain; the command line says so, and has a test.
            return;
        };
        let changed = object(Wanted { legacy: true, ..wanted }).unwrap();
        assert_eq!(original.len(), changed.len());
        let definition = |object: &[u8], map: &str| -> Vec<u32> {
            let (offset, size) =
                object::File::parse(object).unwrap().section_by_name(".BTF").unwrap().file_range().unwrap();
            let section = &object[offset as usize..(offset + size) as usize];
            let members = Btf::parse(section).unwrap().members_of(section, map).unwrap();
            members.into_iter().map(|position| layout::word(section, position).unwrap()).collect()
        };
        assert_ne!(definition(&original, "FRAMES"), definition(&original, "FRAMES_BY_TID"));
        assert_eq!(definition(&changed, "FRAMES"), definition(&original, "FRAMES_BY_TID"));
        assert_eq!(definition(&changed, "FRAMES_BY_TID"), definition(&original, "FRAMES_BY_TID"));
    }

    #[test]
    fn the_maps_are_those_that_the_library_makes() {
        let Ok(object) = object(Wanted { legacy: false, programs: &[], lines: false }) else { return };
        assert_eq!(maps(), aya_obj::Object::parse(&object).unwrap().maps.len());
    }

    #[test]
    fn only_the_programs_wanted_are_left() {
        let Ok(object) = object(Wanted { legacy: true, programs: &["ledger"], lines: false }) else { return };
        let object = aya_obj::Object::parse(&object).unwrap();
        assert_eq!(object.programs.keys().map(String::as_str).collect::<Vec<_>>(), ["ledger"]);
        let functions = || object.functions.values();
        assert!(functions().all(|function| function.line_info.line_info.is_empty()));
        assert!(functions().any(|function| !function.func_info.func_info.is_empty()));
    }
}
