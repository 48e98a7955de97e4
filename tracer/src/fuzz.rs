//! What the fuzzers run (`fuzz/`), each on any bytes: it must not panic, and what it returns must hold. The tests run the
//! fuzzers' corpora through the same functions.

#![expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a panic is a finding")]

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
};
use tracer_ebpf::record::{BufferRecord, KIND_BUFFER, KIND_REGISTRATION, RegistrationRecord};

use crate::{
    cli::file,
    decode::{Assembler, Capabilities, Clock, workload::Workload},
    kernel::{Hierarchy, Symbols, Types, Wanted, addresses, traceable},
    sink::{http, service::Service, trace},
    source::workloads,
};

/// Records as they come from the ring buffer, up to the lines that `trace` prints.
///
/// The first byte of each says what follows: a registration or a buffer of the right size, or so many bytes.
pub fn record(mut bytes: &[u8]) {
    let clock = Clock::new(UNIX_EPOCH + Duration::from_secs(1_000_000_000), Duration::ZERO);
    let mut assembler = Assembler::new(Capabilities::all(), clock);
    let names = HashMap::from([(1, "ext4".to_owned())]);
    while let Some((&selector, rest)) = bytes.split_first() {
        let (size, kind) = match selector {
            0 => (size_of::<RegistrationRecord>(), Some(KIND_REGISTRATION)),
            1 => (size_of::<BufferRecord>(), Some(KIND_BUFFER)),
            length => (length.into(), None),
        };
        let (record, rest) = rest.split_at(size.min(rest.len()));
        let mut record = record.to_vec();
        if let Some(kind) = kind {
            record.resize(size, 0);
            record[..4].copy_from_slice(&kind.to_ne_bytes());
        }
        if let Some(registration) = assembler.push(&record, &names) {
            let line = trace::line(&registration);
            assert!(line.chars().count() <= 100 && !line.chars().any(char::is_control), "{line:?}");
            let json = trace::json_line(&registration).expect("JSON");
            assert!(!json.chars().any(char::is_control), "{json:?}");
        }
        bytes = rest;
    }
    assembler.finish();
}

/// The service's configuration file.
pub fn configuration(bytes: &[u8]) {
    static COMMAND: LazyLock<clap::Command> = LazyLock::new(file::command);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err((line, problem)) = file::parse_with(&COMMAND, text) {
        assert!((1..=text.lines().count() + 1).contains(&line), "line {line}");
        assert!(!problem.to_string().contains('\n'), "{problem}");
    }
}

/// The kernel's types.
pub fn btf(bytes: &[u8]) {
    const WANTED: Wanted<'static> = Wanted {
        functions: &["f", "g"],
        members: &["s.a", "s.b", "t.c"],
        tracepoints: &["t"],
        helpers: &["loop"],
        structs: &["s", "u"],
        enumerators: &["E"],
    };
    // What is no BTF is an error; what the parser cannot take, too.
    let _ = Types::parse(bytes, &WANTED);
}

/// The kernel's lists of symbols and of traceable functions.
pub fn kallsyms(bytes: &[u8]) {
    const FUNCTIONS: [&str; 2] = ["f", "io_pin_pages"];
    if let Ok(symbols) = Symbols::parse(bytes, &FUNCTIONS) {
        assert!(symbols.functions.len() <= FUNCTIONS.len() + 2);
    }
    let wanted = BTreeSet::from([0, 1, 0xffff_ffff_8100_0010, u64::MAX]);
    if let Ok(places) = addresses::look_up(bytes, &wanted) {
        assert!(places.keys().all(|address| wanted.contains(address)));
    }
    let _ = traceable::parse(bytes, &FUNCTIONS);
}

/// Paths of cgroups as the kernel side notes them, and the mounts of their hierarchies.
pub fn cgroups(bytes: &[u8]) {
    let _ = workloads::path_of(bytes);
    let (mounts, own) = bytes.split_at(bytes.len() / 2);
    let own = String::from_utf8_lossy(own);
    let _ = Hierarchy::choose(mounts, &own);
    let workload = Workload::at(&String::from_utf8_lossy(bytes));
    assert!(!workload.name.is_empty());
}

/// A client of the service, from its first byte to its last.
pub fn http(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime =
            runtime.get_or_insert_with(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
        let answer = runtime.block_on(answer(bytes));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    });
}

async fn answer(bytes: &[u8]) -> Vec<u8> {
    thread_local! {
        static SERVED: http::Served = http::Served::new(http::Content {
            read: Arc::new(|| anyhow::bail!("nothing to read")),
            service: Service::default(),
            hosts: http::Hosts::default(),
        });
    }
    let (client, server) = tokio::io::duplex(1 << 16);
    let (mut answers, mut requests) = tokio::io::split(client);
    let service = http::serve_one(server, SERVED.with(Clone::clone));
    let mut answer = Vec::new();
    let client = async {
        tokio::join!(
            async {
                // The service may have hung up.
                let _ = requests.write_all(bytes).await;
                let _ = requests.shutdown().await;
            },
            async { drop(answers.read_to_end(&mut answer).await) }
        );
    };
    tokio::join!(service, client);
    answer
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    /// Every file that the fuzzers found worth keeping.
    fn corpus(target: &str, run: Target) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut any = false;
        for file in fs::read_dir(&folder).expect("a corpus") {
            run(&fs::read(file.expect("a file").path()).expect("its bytes"));
            any = true;
        }
        assert!(any, "{} is empty", folder.display());
    }

    #[test]
    fn the_corpora_hold() {
        let targets: [(&str, Target); 6] = [
            ("btf", btf),
            ("cgroups", cgroups),
            ("configuration", configuration),
            ("http", http),
            ("kallsyms", kallsyms),
            ("record", record),
        ];
        for (target, run) in targets {
            corpus(target, run);
        }
    }
}
