//! How BTF lies in its bytes (`include/uapi/linux/btf.h`).

/// Bytes of the header that every version has.
pub const HEADER: usize = 24;
/// Bytes that every type begins with: its name, its kind with the number of its members, its size or the type it refers to.
pub const COMMON: usize = 12;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// Why bytes are no BTF that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No header, or another's.
    #[error("it is no BTF")]
    Magic,
    /// A later layout.
    #[error("its version {0} is not known")]
    Version(u8),
    /// A part lies outside the file, or ends in the middle of a type.
    #[error("its header points outside it, or a type is cut off")]
    Cut,
    /// A kind of types that the layout does not tell the length of.
    #[error("it has a kind of types, {0}, that is not known")]
    Kind(u32),
}

/// Where the two sections begin and how long they are, in bytes from the file's begin.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub types: u64,
    pub types_len: u32,
    pub strings: u64,
    pub strings_len: u32,
}

impl Header {
    /// The header at the begin of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let magic = bytes.get(..2).ok_or(Malformed::Magic)?;
        if magic != MAGIC.to_le_bytes() {
            return Err(Malformed::Magic);
        }
        match bytes.get(2) {
            Some(&VERSION) => {}
            other => return Err(other.map_or(Malformed::Cut, |version| Malformed::Version(*version))),
        }
        let field = |position| word(bytes, position).ok_or(Malformed::Cut);
        let body = u64::from(field(4)?);
        Ok(Self {
            types: body + u64::from(field(8)?),
            types_len: field(12)?,
            strings: body + u64::from(field(16)?),
            strings_len: field(20)?,
        })
    }
}

/// Kinds of types, as far as something is made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Void,
    Ptr,
    Struct,
    Union,
    Enum,
    Enum64,
    Fwd,
    Typedef,
    /// const, volatile, restrict, or a type tag: the type behind it is the same.
    Qualifier,
    Func,
    FuncProto,
    Var,
    /// Integers, floats and what else has a name of its own.
    Other,
}

/// The first three words of a type.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// Offset of its name among the strings.
    pub name: u32,
    pub kind: Kind,
    /// `kind_flag`: bit fields in a struct, a union in a forward declaration.
    pub flag: bool,
    /// Its size, or the type that it refers to.
    pub word: u32,
    /// Words that follow.
    pub tail: usize,
}

impl Common {
    /// Of id 0, which no file has.
    pub const VOID: Self = Self { name: 0, kind: Kind::Void, flag: false, word: 0, tail: 0 };

    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let field = |position| word(bytes, position).ok_or(Malformed::Cut);
        let info = field(4)?;
        let members = (info & 0xffff) as usize;
        let (kind, tail) = match info >> 24 & 0x1f {
            1 | 17 => (Kind::Other, 1),
            2 => (Kind::Ptr, 0),
            3 => (Kind::Other, 3),
            4 => (Kind::Struct, 3 * members),
            5 => (Kind::Union, 3 * members),
            6 => (Kind::Enum, 2 * members),
            7 => (Kind::Fwd, 0),
            8 => (Kind::Typedef, 0),
            9..=11 | 18 => (Kind::Qualifier, 0),
            12 => (Kind::Func, 0),
            13 => (Kind::FuncProto, 2 * members),
            14 => (Kind::Var, 1),
            15 => (Kind::Other, 3 * members),
            16 => (Kind::Other, 0),
            // Their values have 64 bits.
            19 => (Kind::Enum64, 3 * members),
            other => return Err(Malformed::Kind(other)),
        };
        Ok(Self { name: field(0)?, kind, flag: info >> 31 == 1, word: field(8)?, tail })
    }
}

/// The little-endian word at a position.
pub fn word(bytes: &[u8], position: usize) -> Option<u32> {
    bytes.get(position..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_another_format_or_version_is_refused() {
        let header = |first: [u8; 4]| Header::parse(&[&first[..], &[24, 0, 0, 0], &[0; 16]].concat()).map(drop);
        assert_eq!(header([0x9f, 0xeb, 1, 0]), Ok(()));
        assert_eq!(header([0xeb, 0x9f, 1, 0]), Err(Malformed::Magic));
        assert_eq!(header([0x9f, 0xeb, 2, 0]), Err(Malformed::Version(2)));
        assert_eq!(Header::parse(&[0x9f, 0xeb, 1, 0, 24]).map(drop), Err(Malformed::Cut));
    }

    #[test]
    fn a_kind_of_a_later_kernel_is_named() {
        let bytes: Vec<u8> = [0, 20 << 24, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        assert_eq!(Common::parse(&bytes).map(drop), Err(Malformed::Kind(20)));
        assert_eq!(Common::parse(&bytes[..6]).map(drop), Err(Malformed::Cut));
    }
}
