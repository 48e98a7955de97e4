//! BTF out of a file, type by type. The kernel's has some 120,000 types in 6 MB; of these only the names and the place of each
//! type are held, since a service that needs little memory should not need much for its start.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::layout::{COMMON, Common, HEADER, Header, Kind, Malformed, word};

/// Bytes that a look at one type reads at once: as many as most have.
const MOST: usize = 512;

/// Why a file's types are not known.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No room for the names.
    #[error("not enough memory for the {0} bytes of its names")]
    Memory(u32),
}

/// A type.
#[derive(Clone, Debug)]
pub struct Type {
    common: Common,
    tail: Vec<u32>,
}

/// A member of a struct or union, a parameter, or a member of an enum.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Offset of its name.
    pub name: u32,
    /// Its type; an enumerator's value.
    pub word: u32,
    /// Of a struct's or union's: where it lies, in bits, and how wide it is if it is a bit field.
    pub bits: (u32, Option<u32>),
}

impl Type {
    pub fn kind(&self) -> Kind {
        self.common.kind
    }

    /// Offset of its name.
    pub fn name(&self) -> u32 {
        self.common.name
    }

    /// Of a forward declaration: of a union.
    pub fn is_union(&self) -> bool {
        self.common.flag
    }

    /// The type that it refers to, a function's prototype, or what that returns.
    pub fn target(&self) -> u32 {
        self.common.word
    }

    /// Members of a struct, union or enum; parameters of a prototype.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let words = match self.common.kind {
            Kind::Struct | Kind::Union | Kind::Enum64 => 3,
            _ => 2,
        };
        self.tail.chunks_exact(words).map(|member| Member {
            name: member[0],
            word: member[1],
            bits: match member.get(2) {
                Some(bits) if self.common.flag => (bits & 0xff_ffff, Some(bits >> 24)),
                bits => (bits.copied().unwrap_or(0), None),
            },
        })
    }
}

/// A file's types.
#[derive(Debug)]
pub struct Reader {
    file: File,
    types: u64,
    /// Where each type begins in the section; the first has id 1.
    places: Vec<u32>,
    names: Vec<u8>,
}

impl Reader {
    /// Goes through the file once. `seen` gets each type with its id and name.
    pub fn open(path: &Path, mut seen: impl FnMut(u32, Kind, &[u8])) -> Result<Self, ReadError> {
        let mut file = File::open(path)?;
        let mut header = Vec::with_capacity(HEADER);
        (&mut file).take(HEADER as u64).read_to_end(&mut header)?;
        let header = Header::parse(&header)?;
        let names = names(&mut file, &header)?;
        file.seek(SeekFrom::Start(header.types))?;
        let mut input = BufReader::new(&mut file);
        let mut places = Vec::new();
        let mut at = 0;
        while at < header.types_len {
            let mut bytes = [0; COMMON];
            input.read_exact(&mut bytes).map_err(cut)?;
            let common = Common::parse(&bytes)?;
            places.push(at);
            seen(places.len() as u32, common.kind, string(&names, common.name));
            // The number of members has 16 bits: no more than 786,420 bytes.
            let tail = 4 * common.tail as u32;
            at = at.checked_add(COMMON as u32 + tail).ok_or(Malformed::Cut)?;
            skip(&mut input, tail)?;
        }
        if at != header.types_len {
            return Err(Malformed::Cut.into());
        }
        Ok(Self { file, types: header.types, places, names })
    }

    /// The type of this id; `None` for an id that nothing has, and for what cannot be read any more.
    pub fn get(&self, id: u32) -> Option<Type> {
        let Some(index) = usize::try_from(id).ok()?.checked_sub(1) else {
            return Some(Type { common: Common::VOID, tail: Vec::new() });
        };
        let place = self.places.get(index)?;
        let at = self.types + u64::from(*place);
        let mut first = [0; MOST];
        let read = self.file.read_at(&mut first, at).ok()?;
        let first = first.get(..read)?;
        let common = Common::parse(first).ok()?;
        let size = COMMON + 4 * common.tail;
        let words = |bytes: &[u8]| (0..common.tail).map(|i| word(bytes, COMMON + 4 * i)).collect::<Option<_>>();
        let tail = if size <= first.len() {
            words(first)?
        } else {
            let mut whole = vec![0; size];
            self.file.read_exact_at(&mut whole, at).ok()?;
            words(&whole)?
        };
        Some(Type { common, tail })
    }

    /// The name at an offset; empty for what has none.
    pub fn name(&self, offset: u32) -> &str {
        str::from_utf8(string(&self.names, offset)).unwrap_or_default()
    }
}

fn names(file: &mut File, header: &Header) -> Result<Vec<u8>, ReadError> {
    let mut names = Vec::new();
    let length = u64::from(header.strings_len);
    // A length that the file does not have is no reason to ask for the memory.
    if file.metadata()?.len() < header.strings.saturating_add(length) {
        return Err(Malformed::Cut.into());
    }
    names.try_reserve_exact(header.strings_len as usize).map_err(|_| ReadError::Memory(header.strings_len))?;
    file.seek(SeekFrom::Start(header.strings))?;
    file.take(length).read_to_end(&mut names)?;
    if names.len() as u64 == length { Ok(names) } else { Err(Malformed::Cut.into()) }
}

/// The string that begins at an offset; empty where none does.
fn string(names: &[u8], offset: u32) -> &[u8] {
    let rest = names.get(offset as usize..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Goes on behind so many bytes; reads them, since whether they are there would else not be noticed.
fn skip(input: &mut impl io::BufRead, mut bytes: u32) -> Result<(), ReadError> {
    while bytes > 0 {
        let there = input.fill_buf()?.len().min(bytes as usize);
        if there == 0 {
            return Err(Malformed::Cut.into());
        }
        input.consume(there);
        bytes -= there as u32;
    }
    Ok(())
}

fn cut(error: io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::UnexpectedEof { Malformed::Cut.into() } else { error.into() }
}
