//! Random layouts: kinds, sizes, offsets, holes, counts. All run in one session; the same seed yields the same layouts.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use proptest::{
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{check_records, ready};
use crate::{
    attempt::{Attempt, perform},
    context::Context,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
};

/// Number of calls that are compared with their records at a time.
const BATCH: usize = 20;

pub fn tests() -> Vec<Test> {
    vec![Test::new("random_layouts", layouts).within(Duration::from_mins(6))]
}

/// A part of a layout.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Memory(Kind, u64),
    Split(u64),
    Touched(u64),
    Hole(u64),
}

/// A layout with its buffers, as offsets and lengths in thousandths of the whole.
#[derive(Clone, Debug)]
struct Plan {
    pieces: Vec<Piece>,
    buffers: Vec<(u64, u64, u64)>,
    second_opcode: bool,
}

fn piece() -> impl Strategy<Value = Piece> {
    let kinds = prop_oneof![
        8 => Just(Kind::Anon),
        3 => Just(Kind::SharedAnon),
        3 => Just(Kind::Memfd),
        2 => Just(Kind::MemfdPrivate),
        2 => Just(Kind::Tmpfs),
        1 => Just(Kind::SysV),
        1 => Just(Kind::Ext4),
        1 => Just(Kind::Ext4Private),
        1 => Just(Kind::RamfsPrivate),
        1 => Just(Kind::Zero),
        1 => Just(Kind::ReadOnly),
        1 => Just(Kind::NoAccess),
    ];
    prop_oneof![
        10 => (kinds, 1..9_u64).prop_map(|(kind, pages)| Piece::Memory(kind, pages)),
        4 => (2..40_u64).prop_map(Piece::Split),
        4 => (1..20_u64).prop_map(Piece::Touched),
        1 => (1..4_u64).prop_map(Piece::Hole),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let buffer = (0..1000_u64, 0..1000_u64, 0..PAGE);
    let count = prop_oneof![6 => 1..5_usize, 2 => 5..40_usize, 1 => 40..200_usize];
    let buffers = count.prop_flat_map(move |count| proptest::collection::vec(buffer.clone(), count));
    (proptest::collection::vec(piece(), 1..8), buffers, any::<bool>())
        .prop_map(|(pieces, buffers, second_opcode)| Plan { pieces, buffers, second_opcode })
}

fn layouts(context: &Context) -> TestResult {
    ready(context)?;
    let cases = if context.quick { 60 } else { 320 };
    let mut runner = runner(context.seed);
    let mut pending = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for case in 0..cases {
        let plan = plan().new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}"))?.current();
        let told = || format!("case {case} of seed {}: {plan:?}", context.seed);
        let calls = one(context, &plan).with_context(told)?;
        if calls[0].0.answer.ret < 0 {
            refused += 1;
        } else {
            accepted += 1;
        }
        pending.extend(calls);
        if pending.len() >= BATCH {
            check_records(context, &pending).with_context(|| format!("up to case {case} of seed {}", context.seed))?;
            pending.clear();
        }
    }
    check_records(context, &pending)?;
    println!("    {cases} layouts of seed {}: {accepted} accepted, {refused} refused", context.seed);
    ensure!(accepted >= cases / 8 && refused >= cases / 8, "the layouts are too much alike");
    Ok(Verdict::Passed)
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// The registration, preceded by each buffer alone, to find out which one is refused.
fn one(context: &Context, plan: &Plan) -> anyhow::Result<Vec<(Attempt, Option<usize>)>> {
    let mut space = Space::new(512 * PAGE);
    build(&mut space, &plan.pieces)?;
    let buffers: Vec<Buffer> = plan.buffers.iter().map(|place| buffer(&space, *place)).collect();
    let ring = Ring::new()?;
    let request = if plan.second_opcode { Request::Register2(&buffers) } else { Request::Register(&buffers) };
    let whole = perform(context, &ring, request)?;
    if whole.answer.ret >= 0 {
        let back = perform(context, &ring, Request::Unregister)?;
        return Ok(vec![(whole, None), (back, None)]);
    }
    let mut calls = Vec::new();
    for (place, buffer) in buffers.iter().enumerate() {
        let alone = perform(context, &ring, Request::Register(std::slice::from_ref(buffer)))?;
        let refused = alone.answer.ret < 0;
        if refused {
            ensure!(
                alone.answer.ret == whole.answer.ret,
                "alone {}, among others {}",
                alone.answer.ret,
                whole.answer.ret
            );
            calls.insert(0, (whole, Some(place)));
            calls.push((alone, Some(0)));
            return Ok(calls);
        }
        calls.push((alone, None));
        calls.push((perform(context, &ring, Request::Unregister)?, None));
    }
    anyhow::bail!("refused as a whole with {}, and no buffer is refused alone", whole.answer.ret)
}

fn build(space: &mut Space, pieces: &[Piece]) -> anyhow::Result<()> {
    for piece in pieces {
        match *piece {
            Piece::Memory(kind, pages) => {
                space.map(kind, pages * PAGE)?;
            }
            Piece::Split(pages) => {
                space.map_split(pages)?;
            }
            Piece::Hole(pages) => {
                space.hole(pages * PAGE)?;
            }
            Piece::Touched(pages) => {
                let address = space.map(Kind::Anon, pages * PAGE)?;
                sys::touch(address, pages * PAGE);
            }
        }
    }
    Ok(())
}

/// A range that begins in the layout and may end slightly beyond it.
fn buffer(space: &Space, (start, length, bytes): (u64, u64, u64)) -> Buffer {
    let whole = space.length();
    let offset = (whole * start / 1000 + bytes).min(whole - 1);
    let length = (whole - offset) * length / 1000 + bytes % 7;
    Buffer { address: space.start() + offset, length }
}
