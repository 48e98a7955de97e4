//! What BTF says: where the fields are, what the functions' prototypes are, which helpers there are.

pub(crate) mod layout;
mod reader;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use layout::Kind;
use reader::{ReadError, Reader, Type};

use super::{
    Known, Unknown, Wanted,
    prototype::{Parameter, Prototype, integer, pointer},
    symbols::MARKS,
};
use crate::bpf::MAP_ENTRIES;

/// Longest chain of qualifiers, typedefs and pointers that is followed; BTF from the kernel has no longer one.
const CHAIN: usize = 32;

/// Members of one struct that are looked at, with those of anonymous ones in it; the kernel has some hundreds.
const MEMBERS: u32 = 1 << 14;

/// The typedef that says that a tracepoint is there, and the functions that have the names of its arguments.
const TRACEPOINT_PREFIXES: [&str; 3] = ["btf_trace_", "__traceiter_", "__bpf_trace_"];

/// The enum of the helpers.
const HELPERS: &str = "bpf_func_id";

/// The enum of the controllers of cgroups, and what its members' names end with.
const SUBSYSTEMS: (&str, &str) = ("cgroup_subsys_id", "_cgrp_id");

/// The types that are wanted, as far as this kernel has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    /// Byte offset by `struct.member`. Members of anonymous structs and unions count as members of the outer one.
    pub offsets: BTreeMap<String, u32>,
    /// Prototypes by function: more than one where unrelated functions share the name.
    pub functions: BTreeMap<String, Vec<Prototype>>,
    /// The id of the first function of each name, by which a trampoline is attached.
    pub ids: BTreeMap<String, u32>,
    /// Arguments by tracepoint, without the leading `void *__data`.
    pub tracepoints: BTreeMap<String, Prototype>,
    /// Helpers, without `BPF_FUNC_`.
    pub helpers: BTreeSet<String>,
    /// Types that are there.
    pub structs: BTreeSet<String>,
    /// Values of members of anonymous enums.
    pub enumerators: BTreeMap<String, u32>,
    /// Numbers of the controllers of cgroups that this kernel has, by their names.
    pub subsystems: BTreeMap<String, u32>,
}

/// Why BTF that is there could not be read.
pub const NO_MEMORY: &str = "there is not enough memory to read it";

impl Types {
    /// Reads the file once and keeps what is wanted.
    ///
    /// # Errors
    /// The file cannot be read, or is no BTF that the parser knows.
    pub fn read(path: &Path, wanted: &Wanted<'_>) -> Known<Self> {
        let btf = Index::open(path, wanted).map_err(|error| {
            let is_memory = match &error {
                ReadError::Memory(_) => true,
                ReadError::Io(error) => error.raw_os_error() == Some(libc::ENOMEM),
                ReadError::Malformed(_) => false,
            };
            if is_memory { Unknown::new(path.display(), NO_MEMORY) } else { Unknown::new(path.display(), error) }
        })?;
        let functions = [wanted.functions, &MARKS, &[MAP_ENTRIES]].concat();
        Ok(Self {
            offsets: keep(wanted.members, |path| btf.offset(path)),
            functions: keep(&functions, |name| {
                let prototypes = btf.prototypes(name);
                (!prototypes.is_empty()).then_some(prototypes)
            }),
            ids: keep(&functions, |name| btf.function_id(name)),
            tracepoints: keep(wanted.tracepoints, |name| btf.tracepoint(name)),
            helpers: btf.helpers(wanted.helpers),
            structs: wanted.structs.iter().filter(|name| btf.is_struct(name)).map(|&n| n.to_owned()).collect(),
            enumerators: btf.enumerators(wanted.enumerators),
            subsystems: btf.subsystems(),
        })
    }
}

#[cfg(any(test, fuzzing))]
impl Types {
    /// Of bytes, as [`Types::read`] of a file.
    pub fn parse(bytes: &[u8], wanted: &Wanted<'_>) -> Known<Self> {
        use std::{fs::File, io::Write as _, os::fd::AsRawFd as _};
        let failed = |error| Unknown::new("a copy in memory", error);
        let memory = rustix::fs::memfd_create("btf", rustix::fs::MemfdFlags::CLOEXEC);
        let mut memory = File::from(memory.map_err(|error| failed(error.into()))?);
        memory.write_all(bytes).map_err(failed)?;
        Self::read(Path::new(&format!("/proc/self/fd/{}", memory.as_raw_fd())), wanted)
    }
}

/// BTF, with the types of the names that are wanted found in one pass: the kernel's has some 120,000 types.
struct Index {
    btf: Reader,
    by_name: HashMap<String, Vec<(u32, Type)>>,
    /// Enums without a name.
    anonymous: Vec<Type>,
}

impl Index {
    fn open(path: &Path, wanted: &Wanted<'_>) -> Result<Self, ReadError> {
        let names = names(wanted);
        let mut found = Vec::new();
        let mut enums = Vec::new();
        let btf = Reader::open(path, |id, kind, name| {
            if name.is_empty() {
                if kind == Kind::Enum && !wanted.enumerators.is_empty() {
                    enums.push(id);
                }
            } else if names.contains(name) {
                found.push(id);
            }
        })?;
        let mut by_name: HashMap<String, Vec<(u32, Type)>> = HashMap::new();
        for (id, kind) in found.into_iter().filter_map(|id| Some((id, btf.get(id)?))) {
            by_name.entry(btf.name(kind.name()).to_owned()).or_default().push((id, kind));
        }
        let anonymous = enums.into_iter().filter_map(|id| btf.get(id)).collect();
        Ok(Self { btf, by_name, anonymous })
    }

    /// The types of a name that are of a kind, with their ids.
    fn named(&self, name: &str, kind: Kind) -> impl Iterator<Item = &(u32, Type)> {
        self.by_name.get(name).into_iter().flatten().filter(move |(_, found)| found.kind() == kind)
    }

    fn is_struct(&self, name: &str) -> bool {
        self.named(name, Kind::Struct).next().is_some()
    }

    fn function_id(&self, name: &str) -> Option<u32> {
        self.named(name, Kind::Func).next().map(|(id, _)| *id)
    }

    /// Offset of `struct.member`; `None` too where two structs of the name disagree.
    fn offset(&self, path: &str) -> Option<u32> {
        let (structure, member) = path.split_once('.')?;
        let structs = self.named(structure, Kind::Struct);
        let mut found: Vec<u32> =
            structs.filter_map(|(_, kind)| self.member_offset(kind, member, 0, &mut { MEMBERS })).collect();
        found.dedup();
        if let [bits] = found[..] { (bits % 8 == 0).then_some(bits / 8) } else { None }
    }

    /// Offset in bits of a member, looked for in nested anonymous structs and unions as well.
    /// `left` is how many may still be looked at: a struct that is damaged may hold itself.
    fn member_offset(&self, outer: &Type, member: &str, depth: usize, left: &mut u32) -> Option<u32> {
        if depth > CHAIN || !matches!(outer.kind(), Kind::Struct | Kind::Union) {
            return None;
        }
        outer.members().find_map(|candidate| {
            *left = left.checked_sub(1)?;
            let name = self.btf.name(candidate.name);
            let (offset, width) = candidate.bits;
            if name == member {
                return width.is_none_or(|bits| bits == 0).then_some(offset);
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self.unqualified(candidate.word)?;
            offset.checked_add(self.member_offset(&inner, member, depth + 1, left)?)
        })
    }

    /// The type behind qualifiers and tags; `None` where it is broken.
    fn unqualified(&self, mut id: u32) -> Option<Type> {
        for _ in 0..CHAIN {
            let kind = self.btf.get(id)?;
            if kind.kind() != Kind::Qualifier {
                return Some(kind);
            }
            id = kind.target();
        }
        None
    }

    /// Every distinct prototype of the functions of this name.
    fn prototypes(&self, name: &str) -> Vec<Prototype> {
        let mut all = Vec::new();
        for (_, function) in self.named(name, Kind::Func) {
            if let Some(prototype) = self.prototype(function.target()).filter(|p| !all.contains(p)) {
                all.push(prototype);
            }
        }
        all
    }

    fn prototype(&self, id: u32) -> Option<Prototype> {
        let function = self.btf.get(id).filter(|kind| kind.kind() == Kind::FuncProto)?;
        let parameters = function.members().map(|parameter| {
            let variadic = parameter.name == 0 && parameter.word == 0;
            let kind = if variadic { "...".to_owned() } else { self.spelled(parameter.word, 0)? };
            Some(Parameter { name: self.btf.name(parameter.name).to_owned(), kind })
        });
        let parameters = parameters.collect::<Option<_>>()?;
        Some(Prototype { returns: self.spelled(function.target(), 0)?, parameters })
    }

    /// A type in the normal form of [`Prototype`].
    fn spelled(&self, id: u32, depth: usize) -> Option<String> {
        if depth > CHAIN {
            return None;
        }
        let kind = self.unqualified(id)?;
        let name = || Some(self.btf.name(kind.name())).filter(|name| !name.is_empty());
        Some(match kind.kind() {
            Kind::Void => "void".to_owned(),
            Kind::Ptr => {
                let target = self.unqualified(kind.target())?;
                if target.kind() == Kind::FuncProto {
                    "function *".to_owned()
                } else {
                    pointer(&self.spelled(kind.target(), depth + 1)?)
                }
            }
            Kind::Union => format!("union {}", name()?),
            Kind::Enum | Kind::Enum64 => format!("enum {}", name()?),
            Kind::Fwd if kind.is_union() => format!("union {}", name()?),
            Kind::Struct | Kind::Fwd => format!("struct {}", name()?),
            _ => integer(name()?).to_owned(),
        })
    }

    /// A tracepoint that is there, with the names of its arguments: the typedef says that it is there, and the
    /// function that calls its probes has the names, which a typedef of a function pointer does not carry.
    fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let [there, with_names @ ..] = TRACEPOINT_PREFIXES.map(|prefix| format!("{prefix}{name}"));
        let (_, typedef) = self.named(&there, Kind::Typedef).next()?;
        let pointer = self.btf.get(typedef.target()).filter(|kind| kind.kind() == Kind::Ptr)?;
        let unnamed = self.prototype(pointer.target())?;
        let mut prototype = with_names
            .iter()
            .flat_map(|function| self.prototypes(function))
            .find(|named| named.parameters.iter().map(|p| &p.kind).eq(unnamed.parameters.iter().map(|p| &p.kind)))
            .unwrap_or_else(|| unnamed.clone());
        prototype.returns = unnamed.returns;
        if !prototype.parameters.is_empty() {
            prototype.parameters.remove(0);
        }
        Some(prototype)
    }

    /// Names and values of the members of the enums of a name.
    fn members_of(&self, name: &str) -> impl Iterator<Item = (&str, u32)> {
        let members = self.named(name, Kind::Enum).flat_map(|(_, list)| list.members());
        members.map(|member| (self.btf.name(member.name), member.word))
    }

    fn helpers(&self, wanted: &[&str]) -> BTreeSet<String> {
        let names = self.members_of(HELPERS).filter_map(|(name, _)| name.strip_prefix("BPF_FUNC_"));
        names.filter(|name| wanted.contains(name)).map(str::to_owned).collect()
    }

    /// Members of the enum of controllers.
    fn subsystems(&self) -> BTreeMap<String, u32> {
        let members = self.members_of(SUBSYSTEMS.0);
        members.filter_map(|(name, value)| Some((name.strip_suffix(SUBSYSTEMS.1)?.to_owned(), value))).collect()
    }

    /// Values of members of anonymous enums; without those that stand in two enums with different values.
    fn enumerators(&self, wanted: &[&str]) -> BTreeMap<String, u32> {
        let mut found: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for member in self.anonymous.iter().flat_map(Type::members) {
            let name = self.btf.name(member.name);
            if wanted.contains(&name) {
                found.entry(name).or_default().insert(member.word);
            }
        }
        let single = |values: BTreeSet<u32>| values.first().copied().filter(|_| values.len() == 1);
        found.into_iter().filter_map(|(name, values)| Some((name.to_owned(), single(values)?))).collect()
    }
}

/// The names of all types that something wanted is found by.
fn names(wanted: &Wanted<'_>) -> HashSet<Vec<u8>> {
    let owners = wanted.members.iter().filter_map(|path| path.split_once('.')).map(|(owner, _)| owner.to_owned());
    let tracepoints = wanted.tracepoints.iter();
    let tracepoints = tracepoints.flat_map(|name| TRACEPOINT_PREFIXES.map(|prefix| format!("{prefix}{name}")));
    let plain = [wanted.functions, wanted.structs, &[HELPERS, SUBSYSTEMS.0, MAP_ENTRIES], &MARKS].concat();
    owners.chain(tracepoints).chain(plain.iter().map(|&name| name.to_owned())).map(String::into_bytes).collect()
}

fn keep<T>(names: &[&str], find: impl Fn(&str) -> Option<T>) -> BTreeMap<String, T> {
    names.iter().filter_map(|&name| Some((name.to_owned(), find(name)?))).collect()
}

#[cfg(test)]
mod tests;
