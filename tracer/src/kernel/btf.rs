//! What BTF says: where the fields are, what the functions' prototypes are, which helpers there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use btf_rs::{Backend, Btf, BtfType, Type};
use regex::Regex;
use rustix::fs::MemfdFlags;

use super::{
    Known, Unknown, Wanted,
    prototype::{Parameter, Prototype, integer, pointer},
    symbols::MARKS,
};

/// Longest chain of qualifiers, typedefs and pointers that is followed; BTF from the kernel has no longer one.
const CHAIN: usize = 32;

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

impl Types {
    /// Reads the file once and keeps what is wanted.
    ///
    /// # Errors
    /// The file cannot be read, or is no BTF that the parser knows.
    pub fn read(path: &Path, wanted: &Wanted<'_>) -> Known<Self> {
        let btf = Index::open(path, wanted).map_err(|error| Unknown::new(path.display(), error))?;
        let functions = [wanted.functions, &MARKS].concat();
        Ok(Self {
            offsets: keep(wanted.members, |path| btf.offset(path)),
            functions: keep(&functions, |name| {
                let prototypes = btf.prototypes(name);
                (!prototypes.is_empty()).then_some(prototypes)
            }),
            ids: keep(&functions, |name| btf.function_ids.get(name).copied()),
            tracepoints: keep(wanted.tracepoints, |name| btf.tracepoint(name)),
            helpers: btf.helpers(wanted.helpers),
            structs: wanted.structs.iter().filter(|name| btf.is_struct(name)).map(|&n| n.to_owned()).collect(),
            enumerators: btf.enumerators(wanted.enumerators),
            subsystems: btf.subsystems(),
        })
    }
}

/// BTF, with the types of the names that are wanted found in one pass: the kernel's has some 120,000 types.
struct Index {
    btf: Btf,
    by_name: HashMap<String, Vec<Type>>,
    function_ids: HashMap<String, u32>,
}

impl Index {
    fn open(path: &Path, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        // The parser works on a mapping of the file, which sysfs gives only since 6.16.
        let file = in_memory(path)?;
        let copy = format!("/proc/self/fd/{}", file.as_raw_fd());
        let btf = Btf::from_file_with_backend(copy, Backend::Mmap)?;
        let mut by_name: HashMap<String, Vec<Type>> = HashMap::new();
        let mut function_ids = HashMap::new();
        for id in btf.resolve_ids_by_regex(&names(wanted)?)? {
            let kind = btf.resolve_type_by_id(id)?;
            let Some(name) = kind.as_btf_type().and_then(|kind| btf.resolve_name(kind).ok()) else { continue };
            if let Type::Func(_) = kind {
                function_ids.entry(name.clone()).or_insert(id);
            }
            by_name.entry(name).or_default().push(kind);
        }
        Ok(Self { btf, by_name, function_ids })
    }

    fn named(&self, name: &str) -> &[Type] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    fn is_struct(&self, name: &str) -> bool {
        self.named(name).iter().any(|kind| matches!(kind, Type::Struct(_)))
    }

    /// Offset of `struct.member`; `None` too where two structs of the name disagree.
    fn offset(&self, path: &str) -> Option<u32> {
        let (structure, member) = path.split_once('.')?;
        let mut found: Vec<u32> = self
            .named(structure)
            .iter()
            .filter(|kind| matches!(kind, Type::Struct(_)))
            .filter_map(|kind| self.member_offset(kind, member, 0))
            .collect();
        found.dedup();
        if let [bits] = found[..] { (bits % 8 == 0).then_some(bits / 8) } else { None }
    }

    /// Offset in bits of a member, looked for in nested anonymous structs and unions as well.
    fn member_offset(&self, kind: &Type, member: &str, depth: usize) -> Option<u32> {
        let (Type::Struct(outer) | Type::Union(outer)) = kind else {
            return None;
        };
        if depth > CHAIN {
            return None;
        }
        outer.members.iter().find_map(|candidate| {
            let name = self.btf.resolve_name(candidate).unwrap_or_default();
            if name == member {
                return candidate.bitfield_size().is_none_or(|bits| bits == 0).then(|| candidate.bit_offset());
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self.unqualified(candidate.get_type_id()?)?;
            Some(candidate.bit_offset() + self.member_offset(&inner, member, depth + 1)?)
        })
    }

    /// The type behind qualifiers and tags; `None` where it is broken.
    fn unqualified(&self, mut id: u32) -> Option<Type> {
        for _ in 0..CHAIN {
            let kind = self.resolve(id)?;
            id = match &kind {
                Type::Const(inner) | Type::Volatile(inner) | Type::Restrict(inner) => inner.get_type_id()?,
                Type::TypeTag(inner) => inner.get_type_id()?,
                _ => return Some(kind),
            };
        }
        None
    }

    fn resolve(&self, id: u32) -> Option<Type> {
        if id == 0 { Some(Type::Void) } else { self.btf.resolve_type_by_id(id).ok() }
    }

    /// Every distinct prototype of the functions of this name.
    fn prototypes(&self, name: &str) -> Vec<Prototype> {
        let mut all = Vec::new();
        for kind in self.named(name) {
            let Type::Func(function) = kind else { continue };
            let prototype = function.get_type_id().and_then(|id| self.prototype(id));
            if let Some(prototype) = prototype.filter(|p| !all.contains(p)) {
                all.push(prototype);
            }
        }
        all
    }

    fn prototype(&self, id: u32) -> Option<Prototype> {
        let Type::FuncProto(function) = self.resolve(id)? else {
            return None;
        };
        let parameters = function.parameters.iter().map(|parameter| {
            let kind =
                if parameter.is_variadic() { "...".to_owned() } else { self.spelled(parameter.get_type_id()?, 0)? };
            Some(Parameter { name: self.btf.resolve_name(parameter).unwrap_or_default(), kind })
        });
        Some(Prototype {
            returns: self.spelled(function.return_type_id(), 0)?,
            parameters: parameters.collect::<Option<_>>()?,
        })
    }

    /// A type in the normal form of [`Prototype`].
    fn spelled(&self, id: u32, depth: usize) -> Option<String> {
        if depth > CHAIN {
            return None;
        }
        let kind = self.unqualified(id)?;
        let name =
            || kind.as_btf_type().and_then(|kind| self.btf.resolve_name(kind).ok()).filter(|name| !name.is_empty());
        Some(match &kind {
            Type::Void => "void".to_owned(),
            Type::Ptr(target) => {
                let target = target.get_type_id()?;
                if let Some(Type::FuncProto(_)) = self.unqualified(target) {
                    "function *".to_owned()
                } else {
                    pointer(&self.spelled(target, depth + 1)?)
                }
            }
            Type::Union(_) => format!("union {}", name()?),
            Type::Enum(_) | Type::Enum64(_) => format!("enum {}", name()?),
            Type::Fwd(forward) if forward.is_union() => format!("union {}", name()?),
            Type::Struct(_) | Type::Fwd(_) => format!("struct {}", name()?),
            _ => integer(&name()?).to_owned(),
        })
    }

    /// A tracepoint that is there, with the names of its arguments: the typedef says that it is there, and the
    /// function that calls its probes has the names, which a typedef of a function pointer does not carry.
    fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let [there, with_names @ ..] = TRACEPOINT_PREFIXES.map(|prefix| format!("{prefix}{name}"));
        let pointer = self.named(&there).iter().find_map(|kind| match kind {
            Type::Typedef(typedef) => self.resolve(typedef.get_type_id()?),
            _ => None,
        })?;
        let Type::Ptr(pointer) = pointer else {
            return None;
        };
        let unnamed = pointer.get_type_id().and_then(|id| self.prototype(id))?;
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

    fn helpers(&self, wanted: &[&str]) -> BTreeSet<String> {
        let members = self.named(HELPERS).iter().filter_map(|kind| match kind {
            Type::Enum(list) => Some(&list.members),
            _ => None,
        });
        members
            .flatten()
            .filter_map(|member| self.btf.resolve_name(member).ok()?.strip_prefix("BPF_FUNC_").map(str::to_owned))
            .filter(|name| wanted.contains(&name.as_str()))
            .collect()
    }
}

impl Index {
    /// Members of the enum of controllers.
    fn subsystems(&self) -> BTreeMap<String, u32> {
        let members = self.named(SUBSYSTEMS.0).iter().filter_map(|kind| match kind {
            Type::Enum(list) => Some(&list.members),
            _ => None,
        });
        members
            .flatten()
            .filter_map(|member| {
                let name = self.btf.resolve_name(member).ok()?;
                Some((name.strip_suffix(SUBSYSTEMS.1)?.to_owned(), member.val()))
            })
            .collect()
    }

    /// Values of members of anonymous enums, which only a look at all of them finds; without those that stand in two
    /// enums with different values.
    fn enumerators(&self, wanted: &[&str]) -> BTreeMap<String, u32> {
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let mut found: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for kind in self.btf.resolve_types_by_name("").unwrap_or_default() {
            let Type::Enum(list) = kind else { continue };
            for member in &list.members {
                let name = self.btf.resolve_name(member).ok().filter(|name| wanted.contains(&name.as_str()));
                if let Some(name) = name {
                    found.entry(name).or_default().insert(member.val());
                }
            }
        }
        let single = |values: BTreeSet<u32>| values.first().copied().filter(|_| values.len() == 1);
        found.into_iter().filter_map(|(name, values)| Some((name, single(values)?))).collect()
    }
}

/// The names of all types that something wanted is found by.
fn names(wanted: &Wanted<'_>) -> anyhow::Result<Regex> {
    let owners = wanted.members.iter().filter_map(|path| path.split_once('.')).map(|(owner, _)| owner.to_owned());
    let tracepoints = wanted.tracepoints.iter();
    let tracepoints = tracepoints.flat_map(|name| TRACEPOINT_PREFIXES.map(|prefix| format!("{prefix}{name}")));
    let plain = [wanted.functions, wanted.structs, &[HELPERS, SUBSYSTEMS.0], &MARKS].concat();
    let all: BTreeSet<_> = owners
        .chain(tracepoints)
        .chain(plain.iter().map(|&name| name.to_owned()))
        .map(|name| regex::escape(&name))
        .collect();
    let all: Vec<_> = all.into_iter().collect();
    Ok(Regex::new(&format!("^(?:{})$", all.join("|")))?)
}

/// A copy of the file that can be mapped.
fn in_memory(path: &Path) -> io::Result<OwnedFd> {
    let mut memory = File::from(rustix::fs::memfd_create("btf", MemfdFlags::CLOEXEC)?);
    io::copy(&mut File::open(path)?, &mut memory)?;
    Ok(memory.into())
}

fn keep<T>(names: &[&str], find: impl Fn(&str) -> Option<T>) -> BTreeMap<String, T> {
    names.iter().filter_map(|&name| Some((name.to_owned(), find(name)?))).collect()
}

#[cfg(test)]
mod tests;
