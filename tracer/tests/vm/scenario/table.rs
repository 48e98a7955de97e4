//! A ring's table of buffers, as the scenario that changes it expects it.

use crate::ring::{EMPTY, Request};

/// Slots that hold a buffer.
#[derive(Default)]
pub struct Table {
    pub held: Vec<bool>,
    /// Whether buffers were removed and not yet replaced.
    vacated: bool,
}

impl Table {
    /// Applies a call to the table. Returns the name of the change, and whether it replaced existing buffers.
    pub fn change(&mut self, request: Request<'_>, ret: i64, source: Vec<bool>) -> (String, bool) {
        if ret < 0 {
            return (String::new(), false);
        }
        let (kind, replaced) = match request {
            Request::Register(buffers) | Request::Register2(buffers) => {
                self.held = buffers.iter().map(|buffer| *buffer != EMPTY).collect();
                (if self.held.contains(&true) { "table" } else { "" }, false)
            }
            Request::Sparse(slots) => {
                self.held = vec![false; slots as usize];
                ("", false)
            }
            Request::Update(first, buffers) | Request::TaggedUpdate(first, buffers, _) => {
                self.update(first as usize, &buffers[..ret as usize])
            }
            Request::Clone(_) => {
                self.held = source;
                ("clone", false)
            }
            Request::Unregister => {
                self.held.clear();
                self.vacated = true;
                ("", false)
            }
            Request::BufferRing(..) | Request::Bare(..) => ("", false),
        };
        self.vacated |= kind == "emptying";
        let installs = !matches!(kind, "" | "emptying");
        let switched = installs && (replaced || self.vacated);
        self.vacated &= !installs;
        (kind.to_owned(), switched)
    }

    fn update(&mut self, first: usize, buffers: &[crate::ring::Buffer]) -> (&'static str, bool) {
        let slots = &mut self.held[first..first + buffers.len()];
        let held = slots.contains(&true);
        slots.iter_mut().zip(buffers).for_each(|(slot, buffer)| *slot = *buffer != EMPTY);
        match (slots.contains(&true), held) {
            (true, true) => ("replacement", true),
            (true, false) => ("fill", false),
            (false, true) => ("emptying", false),
            (false, false) => ("", false),
        }
    }
}
