//! The functions that kallsyms lists.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use super::{Known, OF_PROCFS, Unknown, unread};

/// Symbols that say what the kernel can do; kept besides the functions that are asked for.
pub(super) const MARKS: [&str; 2] = [TRAMPOLINES, MEMLOCK];
/// Attaches fentry and fexit programs.
pub const TRAMPOLINES: &str = "bpf_trampoline_link_prog";
/// Charges BPF maps to `RLIMIT_MEMLOCK`; gone since 5.11, where the memory cgroup does it.
pub const MEMLOCK: &str = "bpf_map_charge_init";

/// One function's name in kallsyms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Functions of exactly this name.
    pub count: u32,
    /// Copies under which the compiler may have put it instead: `name.isra.0`, `name.constprop.0`.
    pub renamed: Vec<String>,
}

/// kallsyms, as far as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// By the function's name in the source.
    pub functions: BTreeMap<String, Symbol>,
    /// Addresses read as zero (no CAP_SYSLOG, or `kernel.kptr_restrict`); nothing here needs them.
    pub addresses_hidden: bool,
}

impl Symbols {
    /// Reads the file line by line.
    ///
    /// # Errors
    /// It cannot be read, or lists no function at all (a kernel without CONFIG_KALLSYMS has an empty one).
    pub fn read(path: &Path, functions: &[&str]) -> Known<Self> {
        let unread = |error| unread(path.parent().unwrap_or(path), OF_PROCFS, path, error);
        let file = File::open(path).map_err(unread)?;
        Self::parse(BufReader::new(file), functions).map_err(|error| Unknown::new(path.display(), error))
    }

    pub(crate) fn parse(lines: impl BufRead, functions: &[&str]) -> Known<Self> {
        let mut symbols = Self { addresses_hidden: true, ..Self::default() };
        let mut any = false;
        each_line(lines, |line| {
            let Some((address, name)) = function(line) else { return };
            any = true;
            symbols.addresses_hidden &= address.bytes().all(|digit| digit == b'0');
            let (base, suffix) = name.split_once('.').unwrap_or((name, ""));
            if functions.contains(&base) || MARKS.contains(&base) {
                symbols.add(base, name, suffix);
            }
        })
        .map_err(|error| Unknown(error.to_string()))?;
        if any { Ok(symbols) } else { Err(Unknown("lists no function".to_owned())) }
    }

    fn add(&mut self, base: &str, name: &str, suffix: &str) {
        // `.cold` and `.part` are pieces of a function that stands under its own name as well.
        let is_copy = ["isra", "constprop", "llvm"].iter().any(|copy| suffix.starts_with(copy));
        if !suffix.is_empty() && !is_copy {
            return;
        }
        let symbol = self.functions.entry(base.to_owned()).or_default();
        if suffix.is_empty() { symbol.count += 1 } else { symbol.renamed.push(name.to_owned()) }
    }

    /// Whether a function of exactly this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.functions.get(name).is_some_and(|symbol| symbol.count > 0)
    }
}

/// Hands over each line, without its end. One buffer serves them all: the kernel's lists run to 200,000 lines.
pub(super) fn each_line(mut lines: impl BufRead, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        take(line.trim_end_matches('\n'));
        line.clear();
    }
    Ok(())
}

/// Address and name of a text symbol of the kernel proper: modules are left out, since io_uring is never one.
fn function(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, kind, name) = (fields.next()?, fields.next()?, fields.next()?);
    (matches!(kind, "t" | "T" | "w" | "W") && fields.next().is_none()).then_some((address, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Known<Symbols> {
        Symbols::parse(text.as_bytes(), &["io_sqe_buffer_register", "check_vma_flags", "gup_vma_lookup"])
    }

    #[test]
    fn functions_copies_and_pieces_are_told_apart() {
        let symbols = parse(
            "ffffffff81000000 t io_sqe_buffer_register.isra.0\n\
             ffffffff81000010 t io_sqe_buffer_register.cold\n\
             ffffffff81000020 t check_vma_flags\n\
             ffffffff81000030 t check_vma_flags\n\
             ffffffff81000040 d gup_vma_lookup\n\
             ffffffffc0000000 t gup_vma_lookup\t[mod]\n\
             ffffffff81000050 T bpf_trampoline_link_prog\n",
        )
        .expect("functions");
        let renamed = &symbols.functions["io_sqe_buffer_register"];
        assert_eq!((renamed.count, &renamed.renamed[..]), (0, &["io_sqe_buffer_register.isra.0".to_owned()][..]));
        assert_eq!(symbols.functions["check_vma_flags"].count, 2);
        assert!(!symbols.has("gup_vma_lookup"));
        assert!(symbols.has(TRAMPOLINES) && !symbols.has(MEMLOCK));
        assert!(!symbols.addresses_hidden);
    }

    #[test]
    fn zero_addresses_are_noticed_and_an_empty_list_is_unknown() {
        assert!(parse("0000000000000000 t check_vma_flags\n").expect("functions").addresses_hidden);
        assert!(parse("").is_err());
    }
}
