//! Scenarios for Q2, Q4 and Q5: properties of the registered memory.

use super::{Options, work::Work};
use crate::{
    space::{Kind, Space},
    sys::{self, PAGE},
};

/// Repetitions and pages, with defaults.
fn extent(options: &Options, count: u64, pages: u64) -> (u64, u64) {
    (options.count.unwrap_or(count), options.pages.unwrap_or(pages))
}

/// Maps anonymous memory and touches its pages.
pub fn touched(space: &mut Space, length: u64) -> anyhow::Result<u64> {
    let address = space.map(Kind::Anon, length)?;
    sys::touch(address, length);
    Ok(address)
}

pub fn prefaulted(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    work.again(extent(options, 16, 256), "ok", touched)
}

pub fn untouched(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    work.again(extent(options, 16, 256), "ok", |space, length| space.map(Kind::Anon, length))
}

/// The pages are present, so that only the VMAs differ.
pub fn many_vmas(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let wanted = options.vmas.unwrap_or(512);
    let (count, pages) = extent(options, 16, wanted);
    anyhow::ensure!(pages % wanted == 0, "{pages} pages do not make {wanted} VMAs of the same size");
    let vmas = if options.cured { 1 } else { wanted };
    work.again((count, pages), "ok", |space, length| {
        let address = space.map_split_by(vmas, length / PAGE / vmas)?;
        if !options.untouched {
            sys::touch(address, length);
        }
        Ok(address)
    })
}

pub fn private_file(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, &[Kind::Ext4Private])
}

pub fn shared_file(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, if options.cured { &[Kind::Anon] } else { &[Kind::Ext4] })
}

pub fn anon_next_to_memfd(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, &[Kind::Anon, Kind::Memfd])
}

pub fn two_memfds(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, &[Kind::Memfd, Kind::Memfd])
}

pub fn dev_zero_private(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, &[Kind::ZeroPrivate])
}

pub fn ramfs_shared(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    adjacent(options, work, &[Kind::Ramfs])
}

/// One buffer over mappings of these kinds, all of the same size.
fn adjacent(options: &Options, work: &mut Work, kinds: &[Kind]) -> anyhow::Result<()> {
    let (count, pages) = extent(options, 4, 32);
    let answer = answer(work, kinds);
    work.again((count, pages), answer, |space, length| {
        for kind in kinds {
            space.map(*kind, length / kinds.len() as u64)?;
        }
        sys::touch(space.start(), length);
        Ok(space.start())
    })
}

/// The kernel's rule for these scenarios. Before 6.5: a single source, and no file except shmem. Since 6.5: no shared
/// mapping of a file whose pages are written back or tracked.
fn answer(work: &Work, kinds: &[Kind]) -> &'static str {
    let is_file = |kind: &Kind| matches!(kind, Kind::Ext4 | Kind::Ext4Private | Kind::Ramfs | Kind::ZeroPrivate);
    let is_tracked = |kind: &Kind| matches!(kind, Kind::Ext4 | Kind::Ramfs);
    match work.kernel.refuses_files() {
        true if kinds.iter().any(is_file) => "EOPNOTSUPP",
        true if kinds.len() > 1 => "EINVAL",
        false if kinds.iter().any(is_tracked) => "EFAULT",
        _ => "ok",
    }
}
