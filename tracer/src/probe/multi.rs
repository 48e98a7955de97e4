//! Loads programs for kprobe.multi, which the library cannot: from the object that it made the maps of, with those maps.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, btf::BtfFeatures};

use crate::bpf::{self, Place};

/// A program in the kernel, and what holds it at its function.
pub struct Program {
    /// Its name in the object.
    pub name: String,
    code: OwnedFd,
    link: Option<OwnedFd>,
}

impl Program {
    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.code.as_fd()
    }

    /// Attaches it.
    ///
    /// # Errors
    /// Why not, in one line.
    pub fn attach(&mut self, function: &str, place: Place) -> Result<(), String> {
        let link = bpf::link(self.code.as_fd(), function, place);
        self.link = Some(link.map_err(|error| format!("the kernel refused a link of kprobe.multi: {error}"))?);
        Ok(())
    }
}

/// The object, ready for the kernel.
pub struct Loader {
    object: Object,
    types: Option<OwnedFd>,
}

impl Loader {
    /// Of the object from which the library made `ebpf`.
    ///
    /// # Errors
    /// It is not as expected, in one line.
    pub fn new(object: &[u8], ebpf: &Ebpf) -> Result<Self, String> {
        let mut object = Object::parse(object).map_err(|error| error.to_string())?;
        let types = match aya::features().btf() {
            Some(features) => types(&mut object, features)?,
            None => None,
        };
        let made: HashMap<_, _> = ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?))).collect();
        let maps = std::mem::take(&mut object.maps);
        let maps = maps.iter().filter_map(|(name, map)| Some((name.as_str(), *made.get(name.as_str())?, map)));
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps, &sections).map_err(|error| error.to_string())?;
        object.relocate_calls(&sections).map_err(|error| error.to_string())?;
        object.sanitize_functions(aya::features());
        Ok(Self { object, types })
    }

    /// Has the verifier check a program.
    ///
    /// # Errors
    /// It refuses, or the object has no such program.
    pub fn load(&self, name: &str) -> Result<Program, String> {
        let missing = || super::attach::missing(name);
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let function = self.object.functions.get(&program.function_key()).ok_or_else(missing)?;
        let types = self.types.as_ref().map(OwnedFd::as_fd);
        let program = bpf::Program { name, license: &program.license, function, types };
        match bpf::load(&program) {
            Ok(code) => Ok(Program { name: name.to_owned(), code, link: None }),
            Err(refused) => Err(super::attach::refused(name, &refused.error, &refused.log)),
        }
    }
}

fn types(object: &mut Object, features: &BtfFeatures) -> Result<Option<OwnedFd>, String> {
    let types = object.fixup_and_sanitize_btf(features).map_err(|error| error.to_string())?;
    let Some(types) = types else { return Ok(None) };
    bpf::load_types(&types.to_bytes())
        .map(Some)
        .map_err(|error| format!("the kernel refused the object's types: {error}"))
}

/// The descriptor of a map; `None` for kinds that the object does not have.
fn descriptor(map: &Map) -> Option<RawFd> {
    let of = |data: &MapData| data.fd().as_fd().as_raw_fd();
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data) => Some(of(data)),
        _ => None,
    }
}
