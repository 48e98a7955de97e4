//! `guest start`: measures the time from exec until a program is ready, for pinscope's daemon and for a minimal program
//! of the same library, which loads and attaches one empty eBPF program.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use aya::{Btf, Ebpf, programs::FEntry};
use clap::{Args, ValueEnum};
use object_write::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use serde_json::json;

use crate::pinscope;

/// Function to which the empty program is attached: the first one that pinscope hooks.
const FUNCTION: &str = "io_sqe_buffers_register";
const PROGRAM: &str = "empty";
const LISTEN: &str = "127.0.0.1:9758";
const PATIENCE: Duration = Duration::from_mins(2);

/// What to start, and how often.
#[derive(Args)]
pub struct Start {
    #[arg(long)]
    what: What,
    /// Number of starts, of which the median counts
    #[arg(long, default_value_t = 5)]
    n: usize,
    /// Attach mode of pinscope
    #[arg(long, default_value = "fentry")]
    attach: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The program with one empty eBPF program
    Empty,
    /// pinscope's daemon, until its first answer
    Daemon,
}

/// Runs the measurement and prints one line of JSON.
pub fn run(start: &Start) -> ExitCode {
    let times: anyhow::Result<Vec<u128>> = (0..start.n).map(|_| once(start)).collect();
    match times {
        Ok(mut times) if !times.is_empty() => {
            times.sort_unstable();
            let what = start.what.to_possible_value().map(|value| value.get_name().to_owned());
            println!("{}", json!({ "start": what, "n": times.len(), "ns": times[times.len() / 2] as u64 }));
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn once(start: &Start) -> anyhow::Result<u128> {
    let begun = Instant::now();
    let mut child = match start.what {
        What::Empty => Command::new(std::env::current_exe()?)
            .args(["probe", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
        What::Daemon => Command::new(pinscope::binary())
            .args(["daemon", "--listen", LISTEN, "--attach", &start.attach])
            .stdin(Stdio::piped())
            .spawn()?,
    };
    let ready = match start.what {
        What::Empty => says_ready(&mut child),
        What::Daemon => answers(&mut child, begun),
    };
    let time = begun.elapsed().as_nanos();
    child.kill()?;
    child.wait()?;
    ready.map(|()| time)
}

fn says_ready(child: &mut Child) -> anyhow::Result<()> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "the empty program is not attached");
    Ok(())
}

/// Waits for an answer: the daemon listens before it attaches, and answers after it.
fn answers(child: &mut Child, begun: Instant) -> anyhow::Result<()> {
    loop {
        if let Ok(mut stream) = TcpStream::connect(LISTEN) {
            write!(stream, "GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "the daemon answered {answer}");
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the daemon ended: {status}");
        }
        ensure!(begun.elapsed() < PATIENCE, "the daemon does not listen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Attaches one empty program, prints a line, and waits to be killed.
pub fn empty() -> ExitCode {
    match attach() {
        Ok(_attached) => {
            println!("ready");
            let _ = io::stdout().flush();
            let _ = io::stdin().read_line(&mut String::new());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn attach() -> anyhow::Result<Ebpf> {
    let mut ebpf = Ebpf::load(&elf()?)?;
    let program: &mut FEntry = ebpf.program_mut(PROGRAM).context("no program")?.try_into()?;
    program.load(FUNCTION, &Btf::from_sys_fs()?)?;
    program.attach()?;
    Ok(ebpf)
}

/// An object that the library can load, with the program `r0 = 0; exit`.
fn elf() -> anyhow::Result<Vec<u8>> {
    const CODE: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    let section = object.add_section(Vec::new(), format!("fentry/{FUNCTION}").into_bytes(), SectionKind::Text);
    object.append_section_data(section, &CODE, 8);
    object.add_symbol(Symbol {
        name: PROGRAM.as_bytes().to_vec(),
        value: 0,
        size: CODE.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
