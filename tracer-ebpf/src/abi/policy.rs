//! The kernels' rules for what may stand behind a registered buffer, and what of a buffer they look at.
//!
//! The kernel side gathers a buffer's [`Traits`] while it walks; what each rule makes of them is decided in user space,
//! so every buffer is judged under every rule, whatever kernel it runs on.

/// `EFAULT`, `EINVAL`, `EOPNOTSUPP` of `include/uapi/asm-generic/errno*.h`.
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// What the rules look at in the VMAs of one buffer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Traits(pub u32);

impl Traits {
    /// A VMA that GUP refuses to write to on every kernel (`check_vma_flags`): not writable, `VM_IO` or `VM_PFNMAP`,
    /// secretmem; or a hole in the range.
    pub const UNPINNABLE: Self = Self(1 << 0);
    /// The first VMA is of a file that is neither shmem nor hugetlb.
    pub const FIRST_FOREIGN: Self = Self(1 << 1);
    /// Some VMA is.
    pub const FOREIGN: Self = Self(1 << 2);
    /// Such a VMA that is not anonymous to GUP either (`vma_is_anonymous`): all but private mappings of `/dev/zero`.
    pub const FILE: Self = Self(1 << 3);
    /// The VMAs do not share one `vm_file` (no file at all counts as one).
    pub const SEVERAL_SOURCES: Self = Self(1 << 4);
    /// A VMA that needs dirty tracking (`vma_needs_dirty_tracking`, since 6.5).
    pub const TRACKED: Self = Self(1 << 5);
    /// A shared VMA of a file under DAX: GUP refuses to pin it for long on every kernel (`vma_is_fsdax` in `check_vma_flags`).
    pub const DAX: Self = Self(1 << 6);
    /// More than 1 GiB, the most that kernels before 7.2 take, and less than 1 TiB, which none takes.
    pub const LARGE: Self = Self(1 << 7);

    /// The first VMA is of a file under DAX, shared or private.
    pub const FIRST_DAX: Self = Self(1 << 8);
    /// A private VMA of a file under DAX. Where its pages are copied already, the fast path takes them without a look at the
    /// VMA; a walk does not tell.
    pub const PRIVATE_DAX: Self = Self(1 << 9);

    /// Combinations there can be; a power of two.
    pub const COUNT: u32 = 1 << 10;

    /// What the length of a buffer adds.
    #[inline(always)]
    pub const fn of_length(length: u64) -> Self {
        Self(((length > 1 << 30 && length < 1 << 40) as u32) << 7)
    }

    /// Whether all of `other` is in it.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether every kernel refuses it.
    pub const fn refused_everywhere(self) -> bool {
        self.has(Self::UNPINNABLE) || self.has(Self::DAX)
    }

    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A rule for what may be registered. Each stands on top of what GUP refuses everywhere.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "json", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum Policy {
    /// To 6.2: anonymous memory, shmem and hugetlb only (`io_pin_pages`, before it `io_sqe_buffer_register`).
    #[cfg_attr(feature = "json", serde(rename = "before_6_5"))]
    Before65 = 0,
    /// 6.3 and 6.4, and stable kernels that took edd478269640: the same, and one `vm_file` for the whole buffer.
    SingleSource = 1,
    /// As first proposed in April 2023 (`can_write_file_mapping` in `check_vma_flags`, `FOLL_ALLOW_BROKEN_FILE_MAPPING`
    /// not set): no write to a file mapping but shmem and hugetlb.
    AsProposed = 2,
    /// Since 6.5: no long-term pin for writing where the mapping needs dirty tracking (`writable_file_mapping_allowed`).
    #[cfg_attr(feature = "json", serde(rename = "since_6_5"))]
    Since65 = 3,
    /// Since 7.2: the same, and buffers of more than 1 GiB (`io_validate_user_buf_range`).
    #[cfg_attr(feature = "json", serde(rename = "since_7_2"))]
    Since72 = 4,
}

impl Policy {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Every policy, the oldest first.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Before65, Self::SingleSource, Self::AsProposed, Self::Since65, Self::Since72];

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before65 => "before_6_5",
            Self::SingleSource => "single_source",
            Self::AsProposed => "as_proposed",
            Self::Since65 => "since_6_5",
            Self::Since72 => "since_7_2",
        }
    }

    /// Whether the traits are enough to tell what it does: of private mappings under DAX, which GUP's fast path (since 6.10)
    /// may take, they are not.
    pub const fn decides(self, traits: Traits) -> bool {
        let private = Traits::PRIVATE_DAX.with(Traits::FIRST_DAX);
        let otherwise = Traits(traits.0 & !private.0);
        !matches!(self, Self::Since65 | Self::Since72)
            || !traits.has(Traits::PRIVATE_DAX)
            || self.refuses(otherwise) != 0
    }

    /// Whether it is sure to refuse a buffer.
    pub const fn is_sure_to_refuse(self, traits: Traits) -> bool {
        self.decides(traits) && self.refuses(traits) != 0
    }

    /// The errno (positive) with which it refuses a buffer, 0 where it does not.
    ///
    /// The length is looked at before the pin. In the pin GUP comes first, with DAX before all else of a VMA; where it stops
    /// behind the first page, what it pinned so far comes back without its errno, of which io_uring makes `EFAULT`. The older
    /// rules then look at the pages in their order: the first VMA's file, then the first that differs from it.
    pub const fn refuses(self, traits: Traits) -> i32 {
        if traits.has(Traits::LARGE) && !matches!(self, Self::Since72) {
            return EFAULT;
        }
        if traits.has(Traits::DAX) || traits.has(Traits::PRIVATE_DAX) {
            return if traits.has(Traits::FIRST_DAX) { EOPNOTSUPP } else { EFAULT };
        }
        if traits.has(Traits::UNPINNABLE) {
            return EFAULT;
        }
        match self {
            Self::Before65 if traits.has(Traits::FOREIGN) => EOPNOTSUPP,
            Self::SingleSource if traits.has(Traits::FIRST_FOREIGN) => EOPNOTSUPP,
            Self::SingleSource if traits.has(Traits::SEVERAL_SOURCES) => EINVAL,
            Self::AsProposed if traits.has(Traits::FILE) => EFAULT,
            Self::Since65 | Self::Since72 if traits.has(Traits::TRACKED) => EFAULT,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(traits: &[Traits]) -> [i32; Policy::COUNT] {
        let all = traits.iter().fold(Traits::default(), |all, one| all.with(*one));
        Policy::ALL.map(|policy| policy.refuses(all))
    }

    #[test]
    fn the_matrix_of_mappings() {
        use Traits as T;
        let foreign = T::FIRST_FOREIGN.with(T::FOREIGN);
        assert_eq!(verdicts(&[]), [0; 5]);
        // Read-only, hole, secretmem.
        assert_eq!(verdicts(&[T::UNPINNABLE, foreign]), [EFAULT; 5]);
        // The same on DAX, which GUP looks at first.
        let dax = T::DAX.with(T::FIRST_DAX);
        assert_eq!(verdicts(&[dax, T::UNPINNABLE, foreign]), [EOPNOTSUPP; 5]);
        // anon next to DAX: GUP gives back the pages before it.
        assert_eq!(verdicts(&[T::DAX, T::SEVERAL_SOURCES, T::FOREIGN, T::FILE]), [EFAULT; 5]);
        assert_eq!(verdicts(&[T::PRIVATE_DAX, T::FIRST_DAX, foreign, T::FILE]), [EOPNOTSUPP; 5]);
        // ext4 shared and private.
        assert_eq!(verdicts(&[foreign, T::FILE, T::TRACKED]), [EOPNOTSUPP, EOPNOTSUPP, EFAULT, EFAULT, EFAULT]);
        assert_eq!(verdicts(&[foreign, T::FILE]), [EOPNOTSUPP, EOPNOTSUPP, EFAULT, 0, 0]);
        // Private /dev/zero.
        assert_eq!(verdicts(&[foreign]), [EOPNOTSUPP, EOPNOTSUPP, 0, 0, 0]);
        // anon next to memfd; anon next to ext4.
        assert_eq!(verdicts(&[T::SEVERAL_SOURCES]), [0, EINVAL, 0, 0, 0]);
        assert_eq!(verdicts(&[T::SEVERAL_SOURCES, T::FOREIGN, T::FILE]), [EOPNOTSUPP, EINVAL, EFAULT, 0, 0]);
        // More than 1 GiB: of anonymous memory, of a shared file, of what no kernel pins.
        assert_eq!(verdicts(&[T::LARGE]), [EFAULT, EFAULT, EFAULT, EFAULT, 0]);
        assert_eq!(verdicts(&[T::LARGE, foreign, T::FILE, T::TRACKED]), [EFAULT; 5]);
        assert_eq!(verdicts(&[T::LARGE, dax]), [EFAULT, EFAULT, EFAULT, EFAULT, EOPNOTSUPP]);
    }

    #[test]
    fn private_dax_is_decided_by_the_slow_path_and_by_what_is_beside_it_alone() {
        use Traits as T;
        let decided = |traits: &[Traits]| {
            let all = traits.iter().fold(T::default(), |all, one| all.with(*one));
            Policy::ALL.map(|policy| policy.decides(all))
        };
        let private = T::PRIVATE_DAX.with(T::FIRST_DAX).with(T::FOREIGN).with(T::FIRST_FOREIGN).with(T::FILE);
        assert_eq!(decided(&[private]), [true, true, true, false, false]);
        assert_eq!(decided(&[private, T::LARGE]), [true, true, true, true, false]);
        for beside in [T::UNPINNABLE, T::TRACKED, T::DAX] {
            assert_eq!(decided(&[private, beside]), [true; 5]);
            assert!(Policy::ALL.iter().all(|policy| policy.is_sure_to_refuse(private.with(beside))));
        }
        assert_eq!(decided(&[T::DAX, T::FIRST_DAX]), [true; 5]);
        assert!(!Policy::Since65.is_sure_to_refuse(private));
    }

    #[test]
    fn a_length_beyond_the_old_limit_is_a_trait() {
        const GIB: u64 = 1 << 30;
        assert_eq!([0, 4096, GIB, 1 << 40, u64::MAX].map(Traits::of_length), [Traits::default(); 5]);
        assert_eq!([GIB + 1, GIB + 4096, 512 * GIB, (1 << 40) - 1].map(Traits::of_length), [Traits::LARGE; 4]);
    }
}
