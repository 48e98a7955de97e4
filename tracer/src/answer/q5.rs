//! Q5: buffers that span several files.

use tracer_ebpf::policy::Traits;

use super::{
    Answer, Context, Draft, Question, Table, Value,
    evidence::{Column, named, share, sum},
    reasons,
};
use crate::{
    aggregate::{SharedBufferFile, Snapshot},
    figure::{Figure, FigureSet},
    human,
};

pub(super) const QUESTION: Question = Question {
    id: "Q5",
    text: "Do buffers span several vm_files?",
    roles: &["register", "update", "buffer", "pin"],
    figures: FigureSet::of(&[
        Figure::Results,
        Figure::EveryCall,
        Figure::PerRegistration,
        Figure::UpdateBuffers,
        Figure::Buffers,
        Figure::Vmas,
        Figure::Files,
        Figure::FileNames,
        Figure::Overlays,
        Figure::EveryPart,
    ]),
};

const SPANS: &[Column] = &[
    Column { key: "what", head: "buffers" },
    Column { key: "buffers", head: "count" },
    Column { key: "share", head: "share" },
];

const FILES: &[Column] = &[
    Column { key: "file", head: "file" },
    Column { key: "filesystem", head: "filesystem" },
    Column { key: "inode", head: "inode" },
    Column { key: "process", head: "process" },
    Column { key: "buffers", head: "buffers" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let (Some(several), Some(of_files), Some(walks)) =
        (snapshot.multi_vm_file_buffers, snapshot.multi_file_buffers, &snapshot.walks)
    else {
        return QUESTION.unanswerable(context, reasons::absence(snapshot, &QUESTION, "files"));
    };
    let n = walks.complete.saturating_add(walks.hole);
    let files = snapshot.shared_buffer_files.as_deref();
    let mut why = reasons::of(snapshot, &QUESTION);
    why.extend(reasons::walks(snapshot));
    why.extend(reasons::lost(snapshot, &["short_records", "files"]));
    if several > 0 && files.is_none_or(<[_]>::is_empty) {
        why.push("which files those are was not kept in this session".to_owned());
    }
    let sources = sources(snapshot);
    QUESTION.told(
        context,
        Draft {
            n,
            of: "buffers walked",
            verdict: verdict([several, of_files], n, files.unwrap_or_default()),
            why,
            tables: vec![
                Table::new("spans", "Buffers", SPANS).rows(spans([several, of_files], sources, n)).detail(),
                Table::new("files", "Files of buffers that span several", FILES)
                    .rows(files.unwrap_or_default().iter().map(file_row)),
            ],
            ..Draft::default()
        },
    )
}

/// `several` buffers have several `vm_file`s, at which the kernel looks, `of_files` several files.
fn verdict([several, of_files]: [u64; 2], n: u64, files: &[SharedBufferFile]) -> String {
    let all = human::plural(n, "buffer");
    if several == 0 {
        return format!("None of {all} spans more than one vm_file.");
    }
    let part = share(several, n).map(|part| format!(" ({})", human::percent(part))).unwrap_or_default();
    let verb = if several == 1 { "spans" } else { "span" };
    let which: Vec<_> = files.iter().take(2).map(shown).collect();
    let which = match (which.is_empty(), files.len().saturating_sub(2) as u64) {
        (true, _) => String::new(),
        (false, 0) => format!(", such as those of {}", human::list(&which)),
        (false, more) => format!(", such as those of {} and {}", which.join(", "), human::plural(more, "other file")),
    };
    let what = match of_files {
        _ if of_files == several => "more than one file".to_owned(),
        0 => "more than one vm_file of one file, which was opened more than once".to_owned(),
        some => format!("more than one vm_file, {} of them more than one file", human::count(some)),
    };
    format!("{} of {all}{part} {verb} {what}{which}.", human::count(several))
}

fn shown(file: &SharedBufferFile) -> String {
    let name = human::cut(&human::plain(&file.name), 32);
    let filesystem = file.filesystem.as_deref().map_or_else(String::new, |name| format!(" ({})", human::plain(name)));
    format!("{name}{filesystem} by {}", named(Some(file.pid), &file.comm))
}

/// Buffers whose VMAs do not share one `vm_file`, where no file at all counts as one.
fn sources(snapshot: &Snapshot) -> Option<u64> {
    let judgements = snapshot.judgements.as_ref()?;
    let several: Vec<_> =
        judgements.others.iter().filter(|judged| judged.traits.has(Traits::SEVERAL_SOURCES)).collect();
    Some(sum(&several, |judged| judged.buffers))
}

fn spans([several, of_files]: [u64; 2], sources: Option<u64>, n: u64) -> Vec<Vec<Value>> {
    let row = |what: &str, buffers: u64| {
        vec![Value::Text(what.to_owned()), Value::Count(buffers), Value::share(share(buffers, n))]
    };
    let mut rows = vec![row("with more than one vm_file", several), row("with more than one file", of_files)];
    rows.extend(sources.map(|sources| row("a vm_file next to another or to none (the rule of 6.3)", sources)));
    rows
}

fn file_row(file: &SharedBufferFile) -> Vec<Value> {
    vec![
        Value::Text(file.name.clone()),
        file.filesystem.clone().map_or(Value::Unknown, Value::Text),
        Value::Count(file.inode),
        Value::Process { pid: Some(file.pid), comm: file.comm.clone() },
        Value::Count(file.buffers),
    ]
}
