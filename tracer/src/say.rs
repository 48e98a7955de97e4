//! Lines on standard error, for people.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes a line. Where it cannot be written (a full disk, a terminal or a reader that has gone) nobody is left to be told:
/// whatever pinscope is doing goes on, and its exit code stays what it is.
pub fn line(line: impl Display) {
    // In one piece: others write there too.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
