use tracer_ebpf::{backing::Class, operation};

use super::*;
use crate::{
    aggregate::{
        Backing, Distribution, Operation, Outcome, Process, ResultCount, fold,
        registered::{Registered, Share},
        tests::{a_sample, any_capabilities, any_sample},
    },
    answer::fixture::{a_snapshot, context, habits, process, values as values_of},
    decode::Capabilities,
    figure::Figure,
    probe::health::Status,
    sink::service::Probe,
};

fn service() -> Service {
    let probe = |function: &str, kind: &str| Probe {
        program: "p".to_owned(),
        function: function.to_owned(),
        kind: kind.to_owned(),
        attached: true,
    };
    Service {
        health: Status::Healthy,
        probes: vec![
            probe("io_sqe_buffers_register", "fentry"),
            probe("io_sqe_buffers_register", "fexit"),
            probe("io_register_rsrc_update", "fentry"),
            probe("io_pin_pages", "fentry"),
            probe("io_uring_register", "raw_tracepoint"),
        ],
        context: context(),
        ..Service::default()
    }
}

/// `count` values around `centre`, with a long tail.
fn spread(count: u64, centre: f64) -> Distribution {
    let values = (1..=count).map(|number| {
        let share = number as f64 / (count + 1) as f64;
        1 + (centre * ((-share.ln()).powf(1.7) + 0.1)) as u64
    });
    values_of(&values.collect::<Vec<_>>())
}

/// A session in which every figure is known, with distributions as a busy machine has them.
fn busy() -> Snapshot {
    let backing = |class, filesystem: Option<&str>, shared, ok, buffers, bytes| Backing {
        class,
        filesystem: filesystem.map(str::to_owned),
        shared,
        writable: true,
        ok,
        buffers,
        vmas: buffers + buffers / 9,
        bytes,
    };
    let mut snapshot = Snapshot {
        elapsed_ns: 9 * 3600 * 1_000_000_000,
        backings: Some(vec![
            backing(Class::Anon, None, false, true, 61_310, 250 << 30),
            backing(Class::Hugetlb, None, true, true, 2048, 64 << 30),
            backing(Class::Shmem, Some("tmpfs"), true, true, 3902, 15 << 30),
            backing(Class::File, Some("ext4"), true, false, 24, 96 << 20),
        ]),
        processes: Some(vec![process(7, "server", habits()), Process { failed: 24, ..process(42, "fio", habits()) }]),
        registration_vmas: Some(spread(8400, 0.9)),
        buffer_vmas: Some(spread(67_284, 0.2)),
        registration_buffers: Some(spread(8400, 6.0)),
        registration_bytes: Some(spread(8400, 21e6)),
        pin: Some(spread(8400, 44_000.0)),
        ..a_snapshot()
    };
    for operation in snapshot
        .operations
        .iter_mut()
        .flatten()
        .filter(|operation| operation.operation == operation::Operation::Register)
    {
        (operation.ok, operation.failed) = (8400, 24);
        operation.results = [("ok", 8400), ("EFAULT", 20), ("ENOMEM", 4)]
            .map(|(result, count)| ResultCount { result: result.to_owned(), count })
            .to_vec();
        operation.duration =
            Some(Outcome { ok: spread(8400, 52_000.0), failed: spread(24, 9000.0), ..Outcome::default() });
    }
    snapshot
}

fn empty() -> Snapshot {
    fold(&crate::sample::Sample::default(), &Capabilities::all())
}

/// `PAGES=FOLDER` keeps them, to be looked at.
fn pages() -> [(&'static str, String); 3] {
    let pages = [
        ("busy", page(&busy(), &service(), None)),
        ("empty", page(&empty(), &service(), None)),
        ("unknown", page(&fold(&a_sample(), &Capabilities::nothing()), &Service::default(), Some(5))),
    ];
    if let Some(folder) = std::env::var_os("PAGES") {
        for (name, html) in &pages {
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.html")), html).unwrap();
        }
    }
    pages
}

#[test]
fn what_is_pinned_and_registered_is_shown_with_what_is_not_known() {
    let of = |registered| page(&Snapshot { registered, ..a_snapshot() }, &service(), None);
    let share = Share { buffers: 8, bytes: 4 << 20, pinned: 1 << 20 };
    let whole = Registered { rings: 4, all: share, from_before: true, ..Registered::default() };
    let html = of(Some(whole.clone()));
    assert!(html.contains("<b>1.00 MiB</b><small>4.00 MiB registered in 8 buffers on 4 rings</small>"), "{html}");
    let html = of(Some(Registered { unknown_rings: 1, ..whole }));
    assert!(html.contains("<b>at least 1.00 MiB</b>") && html.contains("on 4 rings, 1 unknown"), "{html}");
    assert!(!of(None).contains("pinned now</small>"));
}

#[test]
fn nothing_is_loaded_from_anywhere_and_nothing_runs() {
    for (name, html) in pages() {
        for never in ["http:", "https:", "//", "<script", "<link", "<img", "<iframe", "src=", "url(", "@import", " on"]
        {
            let html = html.split_once("</style>").map_or(html.as_str(), |(_, body)| body);
            let found = html.split('<').any(|tag| {
                let tag = format!("<{}", tag.split('>').next().unwrap_or_default());
                tag.contains(never)
            });
            assert!(!found, "{name} has {never} in a tag");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        for link in html.split("href=\"").skip(1) {
            assert!(link.starts_with('/') && !link.starts_with("//"), "{name} links to {link:.40}");
        }
    }
}

#[test]
fn it_shows_what_there_is() {
    let html = page(&busy(), &service(), None);
    for part in [
        ">healthy<",
        "Linux 6.12.107-cloud-amd64",
        "<small>buffers in one VMA</small>",
        "<td>register<small>EFAULT 20, ENOMEM 4</small></td><td>8,424</td><td>8,400</td><td>0</td><td>24</td>",
        "file ext4, shared, not registered",
        "<td>fio.service<small>unit</small></td><td>3</td>",
        "<code>io_pin_pages</code>",
        "tracepoint saw 14 calls",
        "href=\"/metrics\"",
    ] {
        assert!(html.contains(part), "{part} is not in {html}");
    }
    for question in ["Q1", "Q2", "Q3", "Q4", "Q5", "Q7"] {
        assert!(html.contains(&format!("<dt>{question}<span class=\"pill ")), "{question}");
    }
}

#[test]
fn what_is_not_known_is_not_zero() {
    let (snapshot, service) = (fold(&a_sample(), &Capabilities::nothing()), Service::default());
    let html = page(&snapshot, &service, None);
    assert_eq!(html.matches("<b class=\"unknown\">unknown</b>").count(), 6);
    assert!(html.contains(">not measured<") && !html.contains("one seen yet"));
    assert!(!html.contains("Registrations by operation"));
    assert!(html.contains(">nothing attached<"));
}

#[test]
fn an_idle_service_says_that_it_saw_nothing() {
    let html = page(&empty(), &service(), None);
    assert!(html.contains(">none seen yet<") && !html.contains("ot measured"), "{html}");
}

#[test]
fn it_refreshes_only_when_asked() {
    assert!(!page(&empty(), &service(), None).contains("http-equiv=\"refresh\""));
    assert!(page(&empty(), &service(), Some(5)).contains("<meta http-equiv=\"refresh\" content=\"5\">"));
}

#[test]
fn names_from_outside_cannot_break_out() {
    let bad = "<i>&\"'</i>";
    let mut sample = a_sample();
    sample.filesystems.insert(9, bad.to_owned());
    let mut snapshot = fold(&sample, &Capabilities::all());
    snapshot.figures.lose(&[Figure::WorkloadsV1], bad);
    snapshot.processes = Some(vec![Process { comm: bad.to_owned(), ..Process::default() }]);
    snapshot.operations.get_or_insert_default().push(Operation {
        operation: operation::Operation::Register,
        ok: 1,
        partial: 0,
        failed: 0,
        results: vec![],
        partial_reasons: vec![],
        duration: None,
    });
    let mut service = service();
    service.context.origin.kernel = bad.to_owned();
    service.probes[0].function = bad.to_owned();
    service.probes[0].attached = false;
    let html = page(&snapshot, &service, None);
    let shown = "&lt;i&gt;&amp;&quot;";
    assert!(html.matches(shown).count() >= 5, "{html}");
    assert!(!html.contains("<i>"));
}

proptest::proptest! {
    #[test]
    fn any_snapshot_has_a_page(sample in any_sample(), capabilities in any_capabilities()) {
        let html = page(&fold(&sample, &capabilities), &service(), None);
        for element in ["section", "div", "table", "td", "dl", "dd"] {
            let (open, close) = (format!("<{element}"), format!("</{element}>"));
            let opened = html.match_indices(&open).filter(|(at, _)| html[at + open.len()..].starts_with([' ', '>']));
            assert_eq!(opened.count(), html.matches(&close).count(), "{element}");
        }
    }
}
