//! What the answers to the questions rest on, beside the distributions of a snapshot. What was not measured is `None`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracer_ebpf::{
    backing::Class,
    installation::Installation,
    policy::{Policy, Traits},
};

use super::Distribution;
use crate::decode::{Pid, pid, result_name};

/// Installations by whether their ring was at work already (Q1): the kernel had taken a submission
/// (`io_ring_ctx.cached_sq_head`) when the call began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installations {
    /// All of them.
    #[serde(flatten)]
    pub all: ByRequests,
    /// By what they did to the ring's table.
    pub kinds: Kinds,
    /// Updates that took buffers out of their slots and put none in: no installations.
    pub emptying_updates: ByRequests,
}

/// Calls before and after their ring's first request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByRequests {
    /// On a ring that had been given no request yet.
    pub before_requests: u64,
    /// On a ring that had been given requests.
    pub after_requests: u64,
}

impl ByRequests {
    /// Both together.
    pub fn sum(self) -> u64 {
        self.before_requests.saturating_add(self.after_requests)
    }
}

/// Installations by what they did to their ring's table; `None` where that kind is not told from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "KindsByName", into = "KindsByName")]
pub struct Kinds(pub [Option<ByRequests>; Installation::COUNT]);

/// Installations by what they did to their ring's table; null where that kind is not told from others.
#[derive(Serialize, Deserialize, JsonSchema)]
struct KindsByName {
    /// A whole table: a register.
    table: Option<ByRequests>,
    /// An update of empty slots alone.
    fill: Option<ByRequests>,
    /// An update of a slot that held a buffer.
    replacement: Option<ByRequests>,
    /// An update of which it is not known what its slots held.
    update: Option<ByRequests>,
    /// A clone of another ring's buffers.
    clone: Option<ByRequests>,
}

impl From<Kinds> for KindsByName {
    fn from(Kinds([table, fill, replacement, update, clone]): Kinds) -> Self {
        Self { table, fill, replacement, update, clone }
    }
}

impl From<KindsByName> for Kinds {
    fn from(KindsByName { table, fill, replacement, update, clone }: KindsByName) -> Self {
        Self([table, fill, replacement, update, clone])
    }
}

impl Kinds {
    /// Those of one kind.
    pub fn of(&self, kind: Installation) -> ByRequests {
        self.0[kind as usize].unwrap_or_default()
    }

    /// Each kind and its installations.
    pub fn iter(&self) -> impl Iterator<Item = (Installation, ByRequests)> {
        Installation::ALL.into_iter().zip(self.0).filter_map(|(kind, counts)| Some((kind, counts?)))
    }
}

/// Registrations seen from their rings (Q1). An installation is a register, an update or a clone that succeeded and put a
/// buffer into the ring's table: to make empty slots, or to empty one, is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rings {
    /// Age of the ring at each installation, nanoseconds; only of rings whose making was seen.
    pub age: Distribution,
    /// Time between an installation and the one before on the same ring, nanoseconds.
    pub gap: Distribution,
    /// Which installation of its ring each was, from 1: its count at 1 is the number of rings, its count at `k` the
    /// number of rings with at least `k` of them.
    pub ordinal: Distribution,
    /// Installations on rings that are not in `list`, since the map had no room for more; `None` without `list`.
    pub unlisted: Option<u64>,
    /// The rings on which buffers were installed, most installations first; `None` where they are not kept apart.
    pub list: Option<Vec<Ring>>,
}

/// One ring (Q1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ring {
    /// Thread group of the first installation.
    #[serde(flatten, with = "pid::one")]
    #[schemars(with = "pid::Named")]
    pub pid: Pid,
    /// Its `task_struct.comm`.
    pub comm: String,
    /// fd that `io_uring_setup` gave it; `None` for a ring that was there before pinscope.
    pub fd: Option<i32>,
    /// `IORING_SETUP_*`; `None` likewise.
    pub flags: Option<u32>,
    /// Installations that were registers.
    pub registers: u64,
    /// Installations that were updates.
    pub updates: u64,
    /// Installations that were clones into it.
    pub clones: u64,
    /// Unregistrations that succeeded.
    pub unregisters: u64,
    /// Registers, updates and clones that failed.
    pub failed: u64,
    /// Installations after it had been given requests; `None` where this kernel does not tell.
    pub after_requests: Option<u64>,
    /// Installations that filled slots which had never held a buffer: set-up, however late; `None` where it is not told what
    /// slots held.
    pub fills: Option<u64>,
    /// Those of them after it had been given requests; `None` where either is not told.
    pub fills_after_requests: Option<u64>,
    /// Installations after it had been given requests that came in the place of buffers before them: an update of a slot that
    /// held one, a table or a fill after buffers were taken out, a clone over some. Where it is not known what a slot held,
    /// it counts as one. `None` as `after_requests`, and what follows from it.
    pub switches: Option<u64>,
    /// Switches that had an installation before them, in an interval maybe before it.
    pub switch_gaps: Option<u64>,
    /// The time from the installation before the first of them to the last one, nanoseconds.
    pub switch_span_ns: Option<u64>,
    /// Age at the ring's first installation, nanoseconds; `None` for a ring that was there before pinscope.
    pub first_age_ns: Option<u64>,
    /// Age at the last one.
    pub last_age_ns: Option<u64>,
    /// Installations that had one before them, in an interval maybe before it.
    pub gaps: u64,
    /// The times between those and the ones before them, together, nanoseconds.
    pub span_ns: u64,
    /// The shortest time between two installations, nanoseconds; `None` where there are not two, and in an interval but
    /// where it is the ring's shortest so far.
    pub shortest_gap_ns: Option<u64>,
    /// Where `switch_span_ns` begins, `CLOCK_MONOTONIC`; 0 where there is none.
    #[serde(rename = "switches_from_ns")]
    pub from_ns: u64,
    /// When the last switch began, `CLOCK_MONOTONIC`; 0 where there is none.
    #[serde(rename = "last_switch_ns")]
    pub last_ns: u64,
    /// Another ring has its memory by now.
    pub ended: bool,
    /// It has an index (`IORING_REGISTER_RING_FDS`, `IORING_SETUP_REGISTERED_FD_ONLY`), so that it may live on without its fd.
    pub indexed: bool,
}

impl Ring {
    /// Installations after it had been given requests, but for first fills of slots; all such where this kernel does not tell.
    pub fn late(&self) -> u64 {
        match self.after_requests {
            Some(after) => after.saturating_sub(self.fills_after_requests.unwrap_or(0)),
            None => self.installations().saturating_sub(self.fills.unwrap_or(0)),
        }
    }

    /// Registers, updates and clones that succeeded and put a buffer into its table.
    pub fn installations(&self) -> u64 {
        self.registers.saturating_add(self.updates).saturating_add(self.clones)
    }
}

/// Buffers with the same traits, result, process and filesystem (Q4). Buffers that every policy accepts and the kernel
/// accepted are in [`Judgements::clean`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// What the rules look at.
    #[serde(with = "traits")]
    #[schemars(with = "TraitsByName")]
    pub traits: Traits,
    /// errno of the kernel's answer (positive), 0 where it accepted.
    pub errno: i32,
    /// Thread group; `None` where processes are not kept apart.
    #[serde(flatten, with = "pid::maybe")]
    #[schemars(with = "pid::MaybeNamed")]
    pub pid: Option<Pid>,
    /// Its `task_struct.comm`.
    pub comm: String,
    /// Filesystem of the first backing that a rule objects to.
    pub filesystem: Option<String>,
    /// Class of that backing; `None` (`unknown`) of memory that was not looked at: of a buffer that the kernel refused for its
    /// length, which is all that is known of it.
    #[serde(with = "class")]
    #[schemars(with = "ClassOrUnknown")]
    pub class: Option<Class>,
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Judged {
    /// Name of its class, or `unknown`.
    pub fn class_name(&self) -> &'static str {
        self.class.map_or("unknown", Class::name)
    }
}

/// Every walked buffer, judged (Q4), and those refused for their length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgements {
    /// Buffers without any trait that a rule looks at, which the kernel accepted.
    pub clean: u64,
    /// The others.
    pub others: Vec<Judged>,
    /// Buffers that were pinned and let go again, since another one of their call was refused: their own answer is in neither.
    pub rolled_back: u64,
    /// Buffers that are in none of these: not walked to their end, or the map was full.
    pub unjudged: u64,
    /// The policy that this kernel is under; `None` where it cannot be told.
    pub kernel_policy: Option<Policy>,
    /// How that is known.
    pub kernel_policy_why: String,
}

/// What accepted buffers of about the same number of VMAs and the same size cost (Q2). Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostCell {
    /// VMAs: the least and the most of the cell, a power of two and the next less one.
    pub vmas_from: u64,
    /// Inclusive; `u64::MAX` for the last.
    pub vmas_to: u64,
    /// Pages, likewise.
    pub pages_from: u64,
    /// Inclusive; `u64::MAX` for the last.
    pub pages_to: u64,
    /// Buffers.
    pub buffers: u64,
    /// Their VMAs.
    pub vmas: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Time in the pin.
    pub pin_ns: u64,
    /// Those over which pinscope's walk did not have to wait for a writer of `mmap_lock`.
    pub passes: u64,
    /// The VMAs of those.
    pub pass_vmas: u64,
    /// Time of pinscope's walks over those: what a separate pass over the VMAs costs.
    pub pass_ns: u64,
    /// Minor and major faults in the pin; `None` where some buffer's are unknown (hugetlb pages before 6.5).
    pub faults: Option<u64>,
    /// Buffers whose pin made a VMA look-up (the slow path); `None` where look-ups are not hooked.
    pub slow: Option<u64>,
    /// Time in the pins of those.
    pub slow_ns: Option<u64>,
}

/// The registration, or buffer, with the most VMAs (Q3). In an interval only where it has the most of the whole session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Largest {
    /// Its VMAs.
    pub vmas: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Buffers of the registration (1 for a buffer).
    pub buffers: u64,
    /// Nanoseconds from entry to return of the registration; of the pin for a buffer.
    pub nanoseconds: Option<u64>,
    /// Thread group.
    #[serde(flatten, with = "pid::one")]
    #[schemars(with = "pid::Named")]
    pub pid: Pid,
    /// `task_struct.comm`.
    pub comm: String,
}

/// A file in buffers that span more than one `vm_file` (Q5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedBufferFile {
    /// Thread group.
    #[serde(flatten, with = "pid::one")]
    #[schemars(with = "pid::Named")]
    pub pid: Pid,
    /// `task_struct.comm`.
    pub comm: String,
    /// Last component of its path; a memfd's begins with `memfd:`.
    pub name: String,
    /// Filesystem type; `None` where it was not told.
    pub filesystem: Option<String>,
    /// Inode number.
    pub inode: u64,
    /// Buffers that span it and another.
    pub buffers: u64,
}

/// A class, or that memory was not looked at.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ClassOrUnknown {
    Known(Class),
    Unknown(Unknown),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    /// Memory that was not looked at.
    Unknown,
}

mod class {
    use super::{Class, ClassOrUnknown, Deserialize, Deserializer, Serialize, Serializer, Unknown};

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn serialize<S: Serializer>(class: &Option<Class>, serializer: S) -> Result<S::Ok, S::Error> {
        class.map_or(ClassOrUnknown::Unknown(Unknown::Unknown), ClassOrUnknown::Known).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Class>, D::Error> {
        Ok(match ClassOrUnknown::deserialize(deserializer)? {
            ClassOrUnknown::Known(class) => Some(class),
            ClassOrUnknown::Unknown(_) => None,
        })
    }
}

/// One of [`Traits`].
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Trait {
    /// Memory that GUP refuses on every kernel: not writable, `VM_IO`, `VM_PFNMAP`, secretmem, or a hole.
    Unpinnable,
    /// The first VMA is of a file that is neither shmem nor hugetlb.
    FirstForeign,
    /// Some VMA is.
    Foreign,
    /// Such a VMA that is not anonymous to GUP either.
    File,
    /// The VMAs do not share one `vm_file`.
    SeveralSources,
    /// A VMA that needs dirty tracking.
    Tracked,
    /// A shared VMA of a file under DAX.
    Dax,
    /// More than 1 GiB.
    Large,
    /// The first VMA is of a file under DAX.
    FirstDax,
    /// A private VMA of a file under DAX.
    PrivateDax,
}

const TRAITS: [(Traits, Trait); Traits::COUNT.ilog2() as usize] = [
    (Traits::UNPINNABLE, Trait::Unpinnable),
    (Traits::FIRST_FOREIGN, Trait::FirstForeign),
    (Traits::FOREIGN, Trait::Foreign),
    (Traits::FILE, Trait::File),
    (Traits::SEVERAL_SOURCES, Trait::SeveralSources),
    (Traits::TRACKED, Trait::Tracked),
    (Traits::DAX, Trait::Dax),
    (Traits::LARGE, Trait::Large),
    (Traits::FIRST_DAX, Trait::FirstDax),
    (Traits::PRIVATE_DAX, Trait::PrivateDax),
];

/// What the rules look at, and what they make of it.
#[derive(Serialize, Deserialize, JsonSchema)]
struct TraitsByName {
    /// What was seen.
    seen: Vec<Trait>,
    /// By policy: `ok`, an errno's name, or `undecided` where the traits do not tell.
    verdicts: BTreeMap<Policy, String>,
}

mod traits {
    use super::{
        BTreeMap, Deserialize, Deserializer, Policy, Serialize, Serializer, TRAITS, Traits, TraitsByName, result_name,
    };

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn serialize<S: Serializer>(traits: &Traits, serializer: S) -> Result<S::Ok, S::Error> {
        let seen = TRAITS.into_iter().filter(|(one, _)| traits.has(*one)).map(|(_, name)| name).collect();
        let verdict = |policy: Policy| {
            let told = policy.decides(*traits).then(|| result_name(-i64::from(policy.refuses(*traits))));
            told.unwrap_or_else(|| "undecided".to_owned())
        };
        let verdicts = BTreeMap::from(Policy::ALL.map(|policy| (policy, verdict(policy))));
        TraitsByName { seen, verdicts }.serialize(serializer)
    }

    /// The verdicts follow from what was seen.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Traits, D::Error> {
        let TraitsByName { seen, .. } = TraitsByName::deserialize(deserializer)?;
        let of = |name| TRAITS.into_iter().find(|(_, one)| *one as u8 == name as u8).map(|(one, _)| one);
        Ok(seen.into_iter().filter_map(of).fold(Traits::default(), Traits::with))
    }
}
