//! Figures that appear both in a document and in the code. Changing one means changing both.

use super::{files, text};

/// A definition in the source, the document that states it, and the document's words.
const FIGURES: [(&str, &str, &str); 34] = [
    ("const WORKLOADS: u32 = 200;", "tracer/doc/daemon.md", "default 200"),
    ("Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9757)))", "tracer/doc/daemon.md", "default is `127.0.0.1:9757`"),
    ("const MODE: u32 = 0o660;", "tracer/doc/daemon.md", "mode 0660"),
    ("WatchdogSec=1min", "tracer/doc/daemon.md", "every 30 s"),
    ("pub const FILES: usize = 16;", "tracer/doc/accuracy.md", "Up to 16 distinct files"),
    ("pub const BACKING_SLICES: usize = 8;", "tracer/doc/accuracy.md", "8 backings"),
    ("pub const SCHEMA: u32 = 1;", "tracer/doc/json.md", "carry `schema`, at present 1"),
    ("const MANY: u64 = 8;", "tracer/doc/guide.md", "of 8 VMAs and more"),
    ("pub const CALLS: usize = 512;", "tracer/doc/design.md", "one map value of 512 places"),
    ("pub const SLOTS_AT_ONCE: usize = 1024;", "tracer/doc/design.md", "1,024 slots at a time"),
    ("const MOST_VAIN: u64 = 1024;", "tracer/doc/design.md", "(1,024 where there is no maple tree)"),
    ("const MOST_VAIN_IN_TREE: u64 = 64;", "tracer/doc/design.md", "After 64 failed looks"),
    ("const MOST_GENERATIONS: u32 = 128;", "tracer/doc/design.md", "More than 128 generations"),
    ("const MOST: u32 = 256;", "tracer/doc/design.md", "more than 256 empty slots"),
    ("pub const RECENT: usize = 4;", "tracer/doc/design.md", "last four hashes"),
    ("pub const DEFERRED: usize = 8;", "tracer/doc/design.md", "eight of each"),
    ("const SMALL: usize = 1 << 11;", "tracer/doc/design.md", "a table of the values below 2,048"),
    ("pub const LEVELS: usize = 8;", "tracer/doc/design.md", "(8 of 95 bytes)"),
    ("pub const NAME: usize = 96;", "tracer/doc/design.md", "(8 of 95 bytes)"),
    ("pub const SLOTS: usize = 64;", "tracer/doc/design.md", "room for 64 counts"),
    ("const KEPT_NS: u64 = 300_000_000_000;", "tracer/doc/design.md", "a series is kept for 300 s"),
    ("const SHOWN: u32 = 2;", "tracer/doc/design.md", "at least two readings"),
    ("const QUIET: Duration = Duration::from_mins(10);", "tracer/doc/design.md", "for ten minutes"),
    ("connections: 128,", "tracer/doc/design.md", "A listener has 128 places"),
    ("turns: 32,", "tracer/doc/design.md", "32 requests for figures"),
    ("turn: Duration::from_millis(500),", "tracer/doc/design.md", "where nothing moves for 0.5 s"),
    ("head: Duration::from_secs(20),", "tracer/doc/design.md", "must arrive within 20 s"),
    ("answer: Duration::from_secs(30),", "tracer/doc/design.md", "must be made within 30 s"),
    ("write: Duration::from_secs(10),", "tracer/doc/design.md", "takes no byte of one for 10 s"),
    ("const HEAD_SIZE: usize = 16 << 10;", "tracer/doc/design.md", "at most 16 KiB"),
    ("const FIELDS: usize = 64;", "tracer/doc/design.md", "at most 64 fields"),
    ("const STARTING: libc::c_int = 128 << 10;", "tracer/doc/design.md", "128 KiB while it starts"),
    ("const SERVING: libc::c_int = 2 << 20;", "tracer/doc/design.md", "2 MiB while it serves"),
    ("bytes: 1 << 20, time: Duration::from_millis(50)", "tracer/doc/design.md", "One turn takes 1 MiB or 50 ms"),
];

#[test]
fn figures_are_those_of_the_code() {
    let sources: String = files(".rs").iter().chain(&files(".service")).map(|name| text(name)).collect();
    for (definition, name, words) in FIGURES {
        let document = text(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(sources.contains(definition), "no `{definition}` in the source: {name} says \"{words}\"");
        assert!(document.contains(words), "{name} does not say \"{words}\", as `{definition}`");
    }
}
