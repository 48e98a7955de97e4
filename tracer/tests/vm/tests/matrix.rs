//! Which mappings the kernel accepts, and that pinscope agrees: result, class, filesystem, sharing.

use anyhow::{bail, ensure};

use super::{check_records, ready};
use crate::{
    attempt::perform,
    context::Context,
    errno::result_name,
    kernel::{Kernel, Version},
    maps,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring, entries},
    space::{Kind, Space},
    sys::{self, HUGE_PAGE, PAGE},
};

pub const GIB: u64 = 1 << 30;

/// The kernel's answer according to its rules.
type Rule = fn(&Kernel) -> &'static str;

/// Kinds of a single mapping, with the rule for each.
const PLAIN: [(&str, Kind, Rule); 19] = [
    ("anon", Kind::Anon, always),
    ("anon_shared", Kind::SharedAnon, always),
    ("memfd_shared", Kind::Memfd, always),
    ("memfd_private", Kind::MemfdPrivate, always),
    ("tmpfs_shared", Kind::Tmpfs, always),
    ("tmpfs_private", Kind::TmpfsPrivate, always),
    ("sysv", Kind::SysV, sysv),
    ("hugetlb_private", Kind::Hugetlb, always),
    ("hugetlb_shared", Kind::HugetlbShared, always),
    ("hugetlbfs_file", Kind::HugetlbFile, always),
    ("ext4_shared", Kind::Ext4, shared_file),
    ("ext4_private", Kind::Ext4Private, private_file),
    ("ramfs_shared", Kind::Ramfs, shared_file),
    ("ramfs_private", Kind::RamfsPrivate, private_file),
    ("zero_private", Kind::ZeroPrivate, private_file),
    ("zero_shared", Kind::Zero, always),
    ("read_only", Kind::ReadOnly, never),
    ("no_access", Kind::NoAccess, never),
    ("secret", Kind::Secret, never),
];

fn always(_: &Kernel) -> &'static str {
    "ok"
}

fn never(_: &Kernel) -> &'static str {
    "EFAULT"
}

/// Up to 6.4, io_uring itself refuses files; since 6.5, GUP refuses those that need dirty tracking.
fn shared_file(kernel: &Kernel) -> &'static str {
    if kernel.refuses_files() { "EOPNOTSUPP" } else { "EFAULT" }
}

fn private_file(kernel: &Kernel) -> &'static str {
    if kernel.refuses_files() { "EOPNOTSUPP" } else { "ok" }
}

/// tmpfs with its own operations, which the check up to 6.4 does not recognise.
fn sysv(kernel: &Kernel) -> &'static str {
    private_file(kernel)
}

/// The rule against several sources, which 6.5 removed.
fn mixed(kernel: &Kernel) -> &'static str {
    if kernel.refuses_files() { "EINVAL" } else { "ok" }
}

/// Device memory up to 5.10; a mapping of a file that is not shmem up to 6.4; accepted since then.
fn ring_entries(kernel: &Kernel) -> &'static str {
    match kernel.version {
        version if version < Version(6, 1) => "EFAULT",
        version if version < Version(6, 5) => "EOPNOTSUPP",
        _ => "ok",
    }
}

/// The limit of 1 GiB became 1 TiB in 7.2.
fn over_a_gib(kernel: &Kernel) -> &'static str {
    if kernel.version < Version(7, 2) { "EFAULT" } else { "ok" }
}

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = PLAIN.into_iter().map(|(name, kind, rule)| plain(name, kind, rule)).collect();
    tests.extend([
        case("anon_next_to_memfd", mixed, |space| pair(space, Kind::Anon, Kind::Memfd)),
        case("two_memfds", mixed, |space| pair(space, Kind::Memfd, Kind::Memfd)),
        case(
            "memfd_next_to_ext4",
            |kernel| {
                if kernel.refuses_files() { "EINVAL" } else { "EFAULT" }
            },
            |space| pair(space, Kind::Memfd, Kind::Ext4),
        ),
        case("hole_at_start", never, |space| {
            let address = space.hole(PAGE)?;
            space.map(Kind::Anon, PAGE)?;
            Ok(Buffer { address, length: 2 * PAGE })
        }),
        case("hole_in_middle", never, |space| {
            let address = space.map(Kind::Anon, 2 * PAGE)?;
            space.hole(PAGE)?;
            space.map(Kind::Memfd, PAGE)?;
            Ok(Buffer { address, length: 4 * PAGE })
        }),
        case("hole_at_end", never, |space| {
            let address = space.map(Kind::Anon, PAGE)?;
            Ok(Buffer { address, length: PAGE + 1 })
        }),
        case("no_memory_at_all", never, |space| Ok(Buffer { address: space.hole(PAGE)?, length: PAGE })),
        case("empty", never, |space| Ok(Buffer { address: space.map(Kind::Anon, PAGE)?, length: 0 })),
        case("null_with_length", never, |_| Ok(Buffer { address: 0, length: PAGE })),
        case("kernel_address", never, |_| Ok(Buffer { address: 0xffff_8880_0000_0000, length: PAGE })),
        case("a_gib", always, |space| Ok(Buffer { address: wide(space)?, length: GIB })),
        case("over_a_gib", over_a_gib, |space| Ok(Buffer { address: wide(space)?, length: GIB + PAGE })),
        Test::new("matrix_ring_entries", |context| {
            let ring = Ring::new()?;
            let entries = entries(&maps::read()?)?;
            register(context, &ring, entries, ring_entries(&context.kernel))
        }),
    ]);
    tests
}

fn plain(name: &'static str, kind: Kind, rule: Rule) -> Test {
    Test::new(format!("matrix_{name}"), move |context| {
        if kind == Kind::Secret
            && let Err(error) = sys::secret(PAGE)
        {
            return no_secret(context, &error);
        }
        let length = 4 * PAGE.max(kind.granule() / 4);
        let mut space = Space::new(length);
        let address = space.map(kind, length)?;
        register(context, &Ring::new()?, Buffer { address, length }, rule(&context.kernel))
    })
}

fn no_secret(context: &Context, error: &std::io::Error) -> TestResult {
    ensure!(error.raw_os_error() == Some(libc::ENOSYS), "memfd_secret: {error}");
    Ok(Verdict::Ignored(format!("{} lacks memfd_secret or has it disabled", context.kernel.release)))
}

fn case(name: &'static str, rule: Rule, build: fn(&mut Space) -> anyhow::Result<Buffer>) -> Test {
    Test::new(format!("matrix_{name}"), move |context| {
        let mut space = Space::new(GIB + HUGE_PAGE);
        let buffer = build(&mut space)?;
        register(context, &Ring::new()?, buffer, rule(&context.kernel))
    })
}

fn pair(space: &mut Space, first: Kind, second: Kind) -> anyhow::Result<Buffer> {
    let address = space.map(first, 3 * PAGE)?;
    space.map(second, 2 * PAGE)?;
    Ok(Buffer { address, length: 5 * PAGE })
}

/// Maps more than 1 GiB of addresses over 2 MiB of memory: one file, mapped repeatedly, with one VMA each time.
pub fn wide(space: &mut Space) -> anyhow::Result<u64> {
    let file = sys::memfd_of(0, HUGE_PAGE)?;
    let address = space.end();
    for _ in 0..=GIB / HUGE_PAGE {
        space.map_file(&file, 0, HUGE_PAGE)?;
    }
    Ok(address)
}

fn register(context: &Context, ring: &Ring, buffer: Buffer, expected: &str) -> TestResult {
    ready(context)?;
    let attempt = perform(context, ring, Request::Register(&[buffer]))?;
    let got = result_name(attempt.answer.ret);
    let failed_at = (attempt.answer.ret < 0).then_some(0);
    let mut attempts = vec![(attempt, failed_at)];
    if failed_at.is_none() {
        attempts.push((perform(context, ring, Request::Unregister)?, None));
    }
    check_records(context, &attempts)?;
    if got != expected {
        bail!("{} answers {got}, expected {expected} by its rules", context.kernel.release);
    }
    Ok(Verdict::Passed)
}
