//! A kernel function's prototype in one normal form, so that two of them compare as text.

use std::fmt;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; empty where BTF has none.
    pub name: String,
    /// Its type, in the normal form of [`Prototype`].
    pub kind: String,
}

/// Return type and parameters. Types are C without `const`, `volatile`, `restrict` and tags such as `__user`;
/// typedefs keep their name; integers are spelled as in the kernel's source (`unsigned long`).
///
/// It prints as `int (struct io_ring_ctx *, void *, unsigned int, u64 *)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Return type.
    pub returns: String,
    /// Parameters.
    pub parameters: Vec<Parameter>,
}

impl fmt::Display for Prototype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters = self.parameters.iter().map(|p| p.kind.as_str()).collect::<Vec<_>>();
        let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        write!(f, "{} ({parameters})", self.returns)
    }
}

/// The kernel source's spelling of an integer type; gcc's debug information turns some of them round.
pub(super) fn integer(name: &str) -> &str {
    match name {
        "long int" => "long",
        "long unsigned int" => "unsigned long",
        "long long int" => "long long",
        "long long unsigned int" => "unsigned long long",
        "short int" => "short",
        "short unsigned int" => "unsigned short",
        "_Bool" => "bool",
        other => other,
    }
}

/// A pointer to `target`: `struct page *`, `struct page **`.
pub(super) fn pointer(target: &str) -> String {
    if target.ends_with('*') { format!("{target}*") } else { format!("{target} *") }
}

#[cfg(test)]
impl Prototype {
    /// Reads the printed form back; parameters may carry a name after a colon (`long:ret`).
    pub(crate) fn parse(text: &str) -> Self {
        let (returns, rest) = text.split_once('(').expect("an opening bracket");
        let parameters = rest.trim_end_matches(')').split(", ").filter(|p| *p != "void").map(|p| {
            let (kind, name) = p.split_once(':').unwrap_or((p, ""));
            Parameter { name: name.to_owned(), kind: kind.to_owned() }
        });
        Self { returns: returns.trim_end().to_owned(), parameters: parameters.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_it_is_written_in_the_table() {
        for text in [
            "int (struct io_ring_ctx *, void *, unsigned int, u64 *)",
            "struct page ** (unsigned long, unsigned long, int *)",
            "int (void)",
        ] {
            assert_eq!(Prototype::parse(text).to_string(), text);
        }
        assert_eq!(pointer(&pointer("struct page")), "struct page **");
    }
}
