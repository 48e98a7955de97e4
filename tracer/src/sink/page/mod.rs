//! The service's page: what there is to see now, without scripts and without a request to anywhere else.
//!
//! What comes from outside (names of tasks, filesystems, files) is escaped by the templates.

mod chart;
mod health;
mod sections;
mod workloads;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{human, service::Service};
use crate::{aggregate::Snapshot, answer};

const STYLE: &str = include_str!("style.css");

/// What the page may load, for the header `Content-Security-Policy`: nothing.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page as HTML. It loads itself anew every `refresh` seconds where that is given.
pub fn page(snapshot: &Snapshot, service: &Service, refresh: Option<u32>) -> String {
    let answers = answer::answers(snapshot, &service.context);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(seconds) = refresh { meta http-equiv="refresh" content=(seconds); }
                title { "pinscope" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(snapshot, service))
                main {
                    (sections::tiles(snapshot))
                    (health::degraded(snapshot, service))
                    (health::under_way(snapshot))
                    (sections::questions(&answers))
                    (sections::registrations(snapshot))
                    (sections::backings(snapshot))
                    (workloads::workloads(snapshot))
                    (sections::sizes(snapshot))
                    (sections::durations(snapshot))
                    (health::trust(snapshot))
                    (health::probes(service))
                }
                (footer(service, refresh))
            }
        }
    }
    .into_string()
}

fn header(snapshot: &Snapshot, service: &Service) -> Markup {
    let (word, kind) = health::state(snapshot, service);
    html! {
        header {
            h1 { "pinscope" }
            span class={ "pill " (kind) } { (word) }
            p {
                "io_uring buffer registration on Linux " (human::plain(&service.context.origin.kernel)) ", " (service.context.origin.mode) " probes, "
                (human::duration(snapshot.elapsed_ns)) " since they were attached"
            }
        }
    }
}

fn footer(service: &Service, refresh: Option<u32>) -> Markup {
    html! {
        footer {
            a href="/metrics" { "/metrics" }
            a href="/-/healthy" { "/-/healthy" }
            a href="/-/ready" { "/-/ready" }
            @if refresh.is_some() { a href="/" { "stop refreshing" } } @else { a href="/?refresh=5" { "refresh every 5 s" } }
            span { "pinscope " (service.context.origin.version) ". metrics.md in its documentation describes each metric." }
        }
    }
}

/// A card with a title.
fn card(class: &str, title: &str, body: &Markup) -> Markup {
    html! { section class=(class) { h2 { (title) } (body) } }
}

#[cfg(test)]
mod tests;
