//! What BTF says: where the fields are, what the functions' prototypes are, which helpers there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use btf_rs::{Btf, BtfType, Type};

use super::{
    Known, Unknown, Wanted,
    prototype::{Parameter, Prototype, integer, pointer},
};

/// Longest chain of qualifiers, typedefs and pointers that is followed; BTF from the kernel has no longer one.
const CHAIN: usize = 32;

/// The types that are wanted, as far as this kernel has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    /// Byte offset by `struct.member`. Members of anonymous structs and unions count as members of the outer one.
    pub offsets: BTreeMap<String, u32>,
    /// Prototypes by function: more than one where unrelated functions share the name.
    pub functions: BTreeMap<String, Vec<Prototype>>,
    /// Arguments by tracepoint, without the leading `void *__data`.
    pub tracepoints: BTreeMap<String, Prototype>,
    /// Helpers, without `BPF_FUNC_`.
    pub helpers: BTreeSet<String>,
    /// Types that are there.
    pub structs: BTreeSet<String>,
}

impl Types {
    /// Parses the file once (about 0.1 s) and keeps what is wanted.
    ///
    /// # Errors
    /// The file cannot be read, or is no BTF that the parser knows.
    pub fn read(path: &Path, wanted: &Wanted<'_>) -> Known<Self> {
        let btf = Btf::from_file(path).map_err(|error| Unknown::new(path.display(), error))?;
        Ok(Self {
            offsets: keep(wanted.members, |path| offset(&btf, path)),
            functions: keep(wanted.functions, |name| {
                let prototypes = prototypes(&btf, name);
                (!prototypes.is_empty()).then_some(prototypes)
            }),
            tracepoints: keep(wanted.tracepoints, |name| tracepoint(&btf, name)),
            helpers: helpers(&btf, wanted.helpers),
            structs: wanted.structs.iter().filter(|name| is_struct(&btf, name)).map(|&n| n.to_owned()).collect(),
        })
    }
}

fn keep<T>(names: &[&str], find: impl Fn(&str) -> Option<T>) -> BTreeMap<String, T> {
    names.iter().filter_map(|&name| Some((name.to_owned(), find(name)?))).collect()
}

fn named(btf: &Btf, name: &str) -> Vec<Type> {
    btf.resolve_types_by_name(name).unwrap_or_default()
}

fn is_struct(btf: &Btf, name: &str) -> bool {
    named(btf, name).iter().any(|kind| matches!(kind, Type::Struct(_)))
}

/// Offset of `struct.member`; `None` too where two structs of the name disagree.
fn offset(btf: &Btf, path: &str) -> Option<u32> {
    let (structure, member) = path.split_once('.')?;
    let mut found: Vec<u32> = named(btf, structure)
        .iter()
        .filter(|kind| matches!(kind, Type::Struct(_)))
        .filter_map(|kind| member_offset(btf, kind, member, 0))
        .collect();
    found.dedup();
    if let [bits] = found[..] { (bits % 8 == 0).then_some(bits / 8) } else { None }
}

/// Offset in bits of a member, looked for in nested anonymous structs and unions as well.
fn member_offset(btf: &Btf, kind: &Type, member: &str, depth: usize) -> Option<u32> {
    let (Type::Struct(outer) | Type::Union(outer)) = kind else {
        return None;
    };
    if depth > CHAIN {
        return None;
    }
    outer.members.iter().find_map(|candidate| {
        let name = btf.resolve_name(candidate).unwrap_or_default();
        if name == member {
            return candidate.bitfield_size().is_none_or(|bits| bits == 0).then(|| candidate.bit_offset());
        }
        if !name.is_empty() {
            return None;
        }
        let inner = unqualified(btf, candidate.get_type_id()?)?;
        Some(candidate.bit_offset() + member_offset(btf, &inner, member, depth + 1)?)
    })
}

/// The type behind qualifiers and tags; `None` where it is broken.
fn unqualified(btf: &Btf, mut id: u32) -> Option<Type> {
    for _ in 0..CHAIN {
        let kind = resolve(btf, id)?;
        id = match &kind {
            Type::Const(inner) | Type::Volatile(inner) | Type::Restrict(inner) => inner.get_type_id()?,
            Type::TypeTag(inner) => inner.get_type_id()?,
            _ => return Some(kind),
        };
    }
    None
}

fn resolve(btf: &Btf, id: u32) -> Option<Type> {
    if id == 0 { Some(Type::Void) } else { btf.resolve_type_by_id(id).ok() }
}

/// Every distinct prototype of the functions of this name.
fn prototypes(btf: &Btf, name: &str) -> Vec<Prototype> {
    let mut all = Vec::new();
    for kind in named(btf, name) {
        let Type::Func(function) = kind else { continue };
        let prototype = function.get_type_id().and_then(|id| prototype(btf, id));
        if let Some(prototype) = prototype.filter(|p| !all.contains(p)) {
            all.push(prototype);
        }
    }
    all
}

fn prototype(btf: &Btf, id: u32) -> Option<Prototype> {
    let Type::FuncProto(function) = resolve(btf, id)? else {
        return None;
    };
    let parameters = function.parameters.iter().map(|parameter| {
        let kind = if parameter.is_variadic() { "...".to_owned() } else { spelled(btf, parameter.get_type_id()?, 0)? };
        Some(Parameter { name: btf.resolve_name(parameter).unwrap_or_default(), kind })
    });
    Some(Prototype {
        returns: spelled(btf, function.return_type_id(), 0)?,
        parameters: parameters.collect::<Option<_>>()?,
    })
}

/// A type in the normal form of [`Prototype`].
fn spelled(btf: &Btf, id: u32, depth: usize) -> Option<String> {
    if depth > CHAIN {
        return None;
    }
    let kind = unqualified(btf, id)?;
    let name = || kind.as_btf_type().and_then(|kind| btf.resolve_name(kind).ok()).filter(|name| !name.is_empty());
    Some(match &kind {
        Type::Void => "void".to_owned(),
        Type::Ptr(target) => {
            let target = target.get_type_id()?;
            if let Some(Type::FuncProto(_)) = unqualified(btf, target) {
                "function *".to_owned()
            } else {
                pointer(&spelled(btf, target, depth + 1)?)
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
fn tracepoint(btf: &Btf, name: &str) -> Option<Prototype> {
    let pointer = named(btf, &format!("btf_trace_{name}")).into_iter().find_map(|kind| match kind {
        Type::Typedef(typedef) => resolve(btf, typedef.get_type_id()?),
        _ => None,
    })?;
    let Type::Ptr(pointer) = pointer else {
        return None;
    };
    let unnamed = pointer.get_type_id().and_then(|id| prototype(btf, id))?;
    let mut prototype = ["__traceiter_", "__bpf_trace_"]
        .iter()
        .flat_map(|prefix| prototypes(btf, &format!("{prefix}{name}")))
        .find(|named| named.parameters.iter().map(|p| &p.kind).eq(unnamed.parameters.iter().map(|p| &p.kind)))
        .unwrap_or_else(|| unnamed.clone());
    prototype.returns = unnamed.returns;
    if !prototype.parameters.is_empty() {
        prototype.parameters.remove(0);
    }
    Some(prototype)
}

fn helpers(btf: &Btf, wanted: &[&str]) -> BTreeSet<String> {
    let members = named(btf, "bpf_func_id").into_iter().filter_map(|kind| match kind {
        Type::Enum(list) => Some(list.members),
        _ => None,
    });
    members
        .flatten()
        .filter_map(|member| btf.resolve_name(&member).ok()?.strip_prefix("BPF_FUNC_").map(str::to_owned))
        .filter(|name| wanted.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
