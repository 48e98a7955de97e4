//! What a verdict rests on: figures with their units, in tables that every sink can show.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::{
    decode::{Pid, result_name},
    human, kernel,
};

/// What a verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Evidence {
    /// How many of `of` were looked at; `None` where they could not be counted.
    pub n: Option<u64>,
    /// What was counted.
    pub of: &'static str,
    /// Release of the running kernel.
    pub kernel: String,
    /// How the hooks are attached: `fentry` or `kprobe`.
    pub mode: String,
    /// The hooks that the figures come from.
    pub hooks: Vec<Hook>,
    /// What the verdict was measured by.
    pub thresholds: Vec<Threshold>,
    /// The figures.
    #[schemars(with = "Vec<Written>")]
    pub tables: Vec<Table>,
    /// What else there is to know, a sentence each.
    pub notes: Vec<String>,
}

/// A hook that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hook {
    /// Name of its role.
    pub role: &'static str,
    /// The kernel's function, or the tracepoint.
    pub function: String,
}

/// A limit that a verdict depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Threshold {
    /// What is held against it.
    pub name: &'static str,
    /// The limit.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

impl Threshold {
    /// `faults in the pins, at least: 64`.
    pub fn words(&self) -> String {
        // `{}` writes a whole number without a point.
        format!("{}: {} {}", self.name, self.value, self.unit).trim_end().to_owned()
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its key in JSON, with the unit.
    pub key: &'static str,
    /// Its head for people.
    pub head: &'static str,
}

/// Figures in rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "Written")]
pub struct Table {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The columns; the first says what a row is about.
    pub columns: &'static [Column],
    /// As many values a row as there are columns; the most telling row first.
    pub rows: Vec<Vec<Value>>,
    /// Whether the text report leaves it out: it has the same elsewhere, or the verdict says it.
    pub detail: bool,
}

impl Table {
    pub(super) fn new(name: &'static str, title: &'static str, columns: &'static [Column]) -> Self {
        Self { name, title, columns, rows: Vec::new(), detail: false }
    }

    /// The same, left out of the text report.
    pub(super) fn detail(self) -> Self {
        self.detail_if(true)
    }

    /// The same under a condition.
    pub(super) fn detail_if(self, detail: bool) -> Self {
        Self { detail, ..self }
    }

    pub(super) fn rows(self, rows: impl IntoIterator<Item = Vec<Value>>) -> Self {
        Self { rows: rows.into_iter().collect(), ..self }
    }
}

/// Figures in rows.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Table")]
struct Written {
    /// Its name.
    name: &'static str,
    /// What it shows.
    title: &'static str,
    /// The most telling row first. A key has its figure's unit in its name.
    rows: Vec<BTreeMap<&'static str, Value>>,
}

impl From<Table> for Written {
    fn from(Table { name, title, columns, rows, .. }: Table) -> Self {
        let row = |row: Vec<Value>| columns.iter().map(|column| column.key).zip(row).collect();
        Self { name, title, rows: rows.into_iter().map(row).collect() }
    }
}

/// One figure. In JSON it is the exact number; `null` is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// Not known, or there is none.
    Unknown,
    /// A count.
    Count(u64),
    /// A count by something, such as faults a buffer.
    Mean(f64),
    /// Bytes.
    Bytes(u64),
    /// Nanoseconds.
    Time(u64),
    /// A share, 0 to 1 as a rule.
    Share(f64),
    /// A rate, per second.
    Rate(f64),
    /// From and to, both inclusive.
    Range(u64, u64),
    /// Pages of 4 KiB from and to, likewise; shown in bytes.
    Pages(u64, u64),
    /// Yes or no.
    Flag(bool),
    /// A word.
    Text(String),
    /// An errno, positive; `null` where there is none.
    #[serde(serialize_with = "errno")]
    #[schemars(with = "Option<String>")]
    Errno(i32),
    /// A name as JSON has it, and as people read it.
    #[serde(serialize_with = "name")]
    #[schemars(with = "String")]
    Name(&'static str, &'static str),
    /// A process.
    Process {
        /// Thread group; `None` where processes are not kept apart.
        pid: Option<Pid>,
        /// `task_struct.comm`.
        comm: String,
    },
}

fn name<S: Serializer>(name: &'static str, _shown: &'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn errno<S: Serializer>(errno: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    if *errno == 0 { serializer.serialize_none() } else { serializer.serialize_str(&errno_name(*errno)) }
}

/// The errno's name; `ok` for 0. `errno` is positive.
pub(super) fn errno_name(errno: i32) -> String {
    result_name(-i64::from(errno))
}

impl Value {
    /// For people; at most three digits that matter.
    pub fn shown(&self) -> String {
        match self {
            Self::Unknown | Self::Errno(0) => "-".to_owned(),
            Self::Count(value) => human::count(*value),
            Self::Mean(value) if *value <= 0.0 => "0".to_owned(),
            Self::Mean(value) => human::number(*value),
            Self::Bytes(value) => human::bytes(*value),
            Self::Time(value) => human::duration(*value),
            Self::Share(value) if *value > 1.0 => format!("{}%", human::number(value * 100.0)),
            Self::Share(value) => human::percent(*value),
            Self::Rate(value) => format!("{}/s", human::number(*value)),
            Self::Range(from, to) => range(*from, *to, human::count),
            Self::Pages(from, to) => {
                let bytes = |pages: u64| pages.saturating_mul(kernel::page_size());
                range(bytes(*from), bytes(*to), human::short_bytes)
            }
            Self::Flag(value) => if *value { "yes" } else { "no" }.to_owned(),
            Self::Text(text) => human::plain(text),
            Self::Errno(errno) => errno_name(*errno),
            Self::Name(_, shown) => (*shown).to_owned(),
            Self::Process { pid, comm } => process(*pid, comm),
        }
    }

    pub(super) fn count(value: Option<u64>) -> Self {
        value.map_or(Self::Unknown, Self::Count)
    }

    pub(super) fn time(value: Option<u64>) -> Self {
        value.map_or(Self::Unknown, Self::Time)
    }

    pub(super) fn share(value: Option<f64>) -> Self {
        value.map_or(Self::Unknown, Self::Share)
    }
}

fn range(from: u64, to: u64, show: fn(u64) -> String) -> String {
    match to {
        u64::MAX => format!("{}+", show(from)),
        _ if from == to => show(from),
        _ => format!("{}-{}", show(from), show(to)),
    }
}

/// `fio (pid 42)`, as verdicts name a process.
pub(super) fn named(pid: Option<Pid>, comm: &str) -> String {
    let comm = human::plain(comm);
    let comm = if comm.is_empty() { "a process" } else { &comm };
    pid.map_or_else(|| comm.to_owned(), |pid| format!("{comm} (pid {pid})"))
}

fn process(pid: Option<Pid>, comm: &str) -> String {
    let comm = human::plain(comm);
    pid.map_or_else(|| if comm.is_empty() { "-".to_owned() } else { comm.clone() }, |pid| format!("{comm} {pid}"))
}

/// `part` of `whole`; `None` of nothing.
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The sum of what `of` takes of each; it does not overflow.
pub(super) fn sum<T>(items: &[T], of: impl Fn(&T) -> u64) -> u64 {
    items.iter().map(of).fold(0, u64::saturating_add)
}
