//! From addresses of kernel code to the functions that they lie in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    ops::Range,
    path::Path,
};

use super::{Known, Unknown, symbols::each_line};

/// No function is longer: an address further behind a symbol is in none.
const LONGEST: u64 = 1 << 20;

/// The place of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function.
    pub function: String,
    /// Bytes from its start.
    pub offset: u64,
    /// The module it is of; `bpf` for programs and trampolines.
    pub module: Option<String>,
}

/// Looks addresses up in kallsyms. What is in no function is absent.
///
/// # Errors
/// It cannot be read, or hides its addresses.
pub fn resolve(kallsyms: &Path, wanted: &BTreeSet<u64>) -> Known<BTreeMap<u64, Place>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let file = File::open(kallsyms).map_err(|error| Unknown::new(kallsyms.display(), error))?;
    look_up(BufReader::new(file), wanted).map_err(|error| Unknown::new(kallsyms.display(), error))
}

pub(crate) fn look_up(lines: impl BufRead, wanted: &BTreeSet<u64>) -> Result<BTreeMap<u64, Place>, String> {
    // The kernel lists some 150,000 functions: their names in one text.
    let mut names = String::new();
    let mut functions: Vec<(u64, Range<usize>)> = Vec::new();
    each_line(lines, |line| {
        if let Some((address, name)) = function(line).filter(|(address, _)| *address != 0) {
            let start = names.len();
            names.push_str(name);
            functions.push((address, start..names.len()));
        }
    })
    .map_err(|error| error.to_string())?;
    if functions.is_empty() {
        return Err("it shows no addresses: CAP_SYSLOG is missing, or kernel.kptr_restrict is 2".to_owned());
    }
    functions.sort_by_key(|(address, _)| *address);
    let found = wanted.iter().filter_map(|&address| {
        let (start, name) = functions.get(functions.partition_point(|(start, _)| *start <= address).checked_sub(1)?)?;
        let offset = Some(address - start).filter(|offset| *offset < LONGEST)?;
        let mut words = names.get(name.clone())?.split_ascii_whitespace();
        let function = words.next()?.to_owned();
        let module = words.next().map(|module| module.trim_matches(['[', ']']).to_owned());
        Some((address, Place { function, offset, module }))
    });
    Ok(found.collect())
}

/// Address, and name with module, of a function's line.
fn function(line: &str) -> Option<(u64, &str)> {
    let (address, rest) = line.split_once(' ')?;
    let (kind, name) = rest.split_once(' ')?;
    matches!(kind, "t" | "T" | "w" | "W").then_some(())?;
    Some((u64::from_str_radix(address, 16).ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "ffffffff81000100 T io_pin_pages\n\
         ffffffff81000000 t check_vma_flags\n\
         ffffffff81000180 d some_data\n\
         ffffffffc0000000 t xdp_umem_create\t[xsk]\n";

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let wanted = [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0188, 0xffff_ffff_c000_0010, 0xffff_ffff_c100_0000, 4];
        let found = look_up(LINES.as_bytes(), &wanted.into()).expect("addresses");
        let place = |address| found.get(&address).map(|p| (p.function.as_str(), p.offset, p.module.as_deref()));
        assert_eq!(
            wanted.map(place),
            [
                Some(("check_vma_flags", 0, None)),
                Some(("io_pin_pages", 0x88, None)),
                Some(("xdp_umem_create", 0x10, Some("xsk"))),
                None,
                None
            ]
        );
    }

    #[test]
    fn hidden_addresses_are_no_places() {
        let error = look_up("0000000000000000 T io_pin_pages\n".as_bytes(), &[1].into()).expect_err("hidden");
        assert!(error.contains("CAP_SYSLOG"), "{error}");
    }
}
