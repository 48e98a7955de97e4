//! What lies behind a VMA: its class, and the key under which it is counted.

use crate::policy::Traits;

/// The kinds of memory that can stand behind a buffer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "json", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum Class {
    /// No file: private anonymous memory.
    Anon = 0,
    /// tmpfs, memfd, System V shared memory, shared anonymous memory: all tmpfs to the kernel.
    Shmem = 1,
    /// hugetlbfs and `MAP_HUGETLB`.
    Hugetlb = 2,
    /// A regular file of any other filesystem.
    File = 3,
    /// A character or block device's own mapping (a private mapping of `/dev/zero` among them).
    Device = 4,
    /// What the kernel maps of its own: vDSO, secretmem, anonymous inodes.
    Special = 5,
}

impl Class {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 6] = [Self::Anon, Self::Shmem, Self::Hugetlb, Self::File, Self::Device, Self::Special];

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::Shmem => "shmem",
            Self::Hugetlb => "hugetlb",
            Self::File => "file",
            Self::Device => "device",
            Self::Special => "special",
        }
    }
}

/// What GUP makes of a VMA beyond its class.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Nothing.
    Plain = 0,
    /// Refused on every kernel: `VM_IO`, `VM_PFNMAP`, secretmem.
    Unpinnable = 1,
    /// Needs dirty tracking (`vma_needs_dirty_tracking`, since 6.5): shared and writable, and its operations have
    /// `page_mkwrite` or `pfn_mkwrite`, or its filesystem writes back.
    Tracked = 2,
    /// Has a file and no operations: a private mapping of `/dev/zero`, anonymous to GUP (`vma_is_anonymous`).
    Anonymous = 3,
    /// shmem under operations that are not its own, System V's: no shmem to `vma_is_shmem`.
    Foreign = 4,
    /// A file on a filesystem under DAX (`vma_is_fsdax`): no page of it is pinned for long.
    Dax = 5,
}

impl Rule {
    const ALL: [Self; 6] = [Self::Plain, Self::Unpinnable, Self::Tracked, Self::Anonymous, Self::Foreign, Self::Dax];
}

/// The filesystem under whose name a process finds a file that is another filesystem's.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Through {
    /// Its own.
    None = 0,
    /// overlayfs: containers' files.
    Overlay = 1,
    /// FUSE that passes I/O through (since 6.9).
    Fuse = 2,
}

/// Class, sharing, writability, rule and the name it is found by in one word: what a VMA is counted under, apart from its filesystem.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u32);

impl Kind {
    const SHARED: u32 = 1 << 3;
    const WRITABLE: u32 = 1 << 4;
    const FAILED: u32 = 1 << 5;
    const RULE: u32 = 6;
    const RULE_MASK: u32 = 7;
    const THROUGH: u32 = 9;

    /// Of memory that was not looked at: it has no class.
    pub const UNKNOWN: Self = Self(7);

    /// Kinds there can be under [`Rule::Plain`]; such a [`Kind`] is below it.
    pub const PLAIN: u32 = 1 << 6;

    /// `shared` is `VM_MAYSHARE`, `writable` is `VM_WRITE` of `vm_area_struct.vm_flags`.
    #[inline(always)]
    pub const fn new(class: Class, shared: bool, writable: bool) -> Self {
        Self(class as u32 | (shared as u32) << 3 | (writable as u32) << 4)
    }

    /// Whether it is of this class.
    #[inline(always)]
    pub const fn is(self, class: Class) -> bool {
        self.0 & 7 == class as u32
    }

    /// The same kind under a rule of GUP's.
    #[inline(always)]
    #[must_use]
    pub const fn under(self, rule: Rule) -> Self {
        Self(self.0 | (rule as u32) << Self::RULE)
    }

    /// What GUP makes of it.
    pub fn rule(self) -> Option<Rule> {
        Rule::ALL.get((self.0 >> Self::RULE & Self::RULE_MASK) as usize).copied()
    }

    /// The same kind, of a file that the process finds under another filesystem's name.
    #[inline(always)]
    #[must_use]
    pub const fn found_through(self, through: Through) -> Self {
        Self(self.0 | (through as u32) << Self::THROUGH)
    }

    /// The name of the filesystem that the process finds the file in, where that is not its own.
    pub const fn through(self) -> Option<&'static str> {
        match self.0 >> Self::THROUGH {
            1 => Some("overlay"),
            2 => Some("fuse"),
            _ => None,
        }
    }

    /// What it adds to the traits of a buffer; `first` for the buffer's first VMA.
    #[inline(always)]
    pub const fn traits(self, first: bool) -> Traits {
        let (class, rule) = (self.0 & 7, self.0 >> Self::RULE & Self::RULE_MASK);
        let mut traits = 0;
        if self.0 & Self::WRITABLE == 0 || rule == Rule::Unpinnable as u32 {
            traits |= Traits::UNPINNABLE.0;
        }
        // Of a file that is neither shmem nor hugetlb.
        if class >= Class::File as u32 || rule == Rule::Foreign as u32 {
            traits |= Traits::FOREIGN.0;
            if first {
                traits |= Traits::FIRST_FOREIGN.0;
            }
            if rule != Rule::Anonymous as u32 {
                traits |= Traits::FILE.0;
            }
        }
        if rule == Rule::Tracked as u32 {
            traits |= Traits::TRACKED.0;
        }
        if rule == Rule::Dax as u32 {
            traits |= if self.is_shared() { Traits::DAX.0 } else { Traits::PRIVATE_DAX.0 };
            if first {
                traits |= Traits::FIRST_DAX.0;
            }
        }
        Traits(traits)
    }

    /// The same kind, of a buffer whose registration was refused.
    #[inline(always)]
    #[must_use]
    pub const fn failed(self) -> Self {
        Self(self.0 | Self::FAILED)
    }

    /// The class; `None` where the word is not one of ours.
    pub fn class(self) -> Option<Class> {
        Class::ALL.get((self.0 & 7) as usize).copied()
    }

    /// Whether the mapping is `MAP_SHARED`.
    pub const fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }

    /// Whether the mapping may be written to.
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }

    /// Whether the buffer was refused.
    pub const fn is_failed(self) -> bool {
        self.0 & Self::FAILED != 0
    }
}

/// Key of the map `BACKINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackingKey {
    /// Address of the `file_system_type`, for [`Class::File`] and [`Class::Special`]; else 0. The map
    /// `FILESYSTEMS` has its name.
    pub filesystem: u64,
    /// Class, sharing, writability, result.
    pub kind: Kind,
    /// Always 0: the key is compared byte by byte.
    pub reserved: u32,
}

/// Value of the map `BACKINGS`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackingTotals {
    /// Buffers with at least one VMA of the kind.
    pub buffers: u64,
    /// VMAs.
    pub vmas: u64,
    /// Bytes of buffers, not of VMAs.
    pub bytes: u64,
}

/// The part of one buffer that has one backing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackingSlice {
    /// As in [`BackingKey::filesystem`].
    pub filesystem: u64,
    /// Bytes of the buffer.
    pub bytes: u64,
    /// VMAs; 0 marks an unused slice.
    pub vmas: u32,
    /// Class, sharing, writability.
    pub kind: Kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vma_adds_to_its_buffer() {
        let writable = |class| Kind::new(class, false, true);
        assert_eq!(writable(Class::Anon).traits(true), Traits::default());
        assert_eq!(Kind::new(Class::Shmem, true, true).traits(true), Traits::default());
        assert_eq!(Kind::new(Class::Anon, false, false).traits(true), Traits::UNPINNABLE);
        assert_eq!(writable(Class::File).traits(false), Traits::FOREIGN.with(Traits::FILE));
        let zero = writable(Class::Device).under(Rule::Anonymous);
        assert_eq!(zero.traits(true), Traits::FOREIGN.with(Traits::FIRST_FOREIGN));
        let shared = Kind::new(Class::File, true, true).under(Rule::Tracked);
        assert_eq!(shared.traits(false), Traits::FOREIGN.with(Traits::FILE).with(Traits::TRACKED));
        let dax = Kind::new(Class::File, true, true).under(Rule::Dax);
        assert_eq!(dax.traits(false), Traits::FOREIGN.with(Traits::FILE).with(Traits::DAX));
        let first = Traits::FIRST_FOREIGN.with(Traits::FIRST_DAX);
        assert_eq!(dax.traits(true), dax.traits(false).with(first));
        let private = Kind::new(Class::File, false, true).under(Rule::Dax);
        assert_eq!(private.traits(false), Traits::FOREIGN.with(Traits::FILE).with(Traits::PRIVATE_DAX));
    }

    const THROUGHS: [Through; 3] = [Through::None, Through::Overlay, Through::Fuse];

    #[test]
    fn a_kind_gives_back_what_went_in() {
        for class in Class::ALL {
            for (shared, writable) in [(false, false), (false, true), (true, false), (true, true)] {
                let kind = Kind::new(class, shared, writable);
                assert!(kind.failed().0 < Kind::PLAIN);
                assert_eq!(
                    (kind.class(), kind.is_shared(), kind.is_writable(), kind.is_failed()),
                    (Some(class), shared, writable, false)
                );
                assert_eq!((kind.failed().class(), kind.failed().is_failed()), (Some(class), true));
                for (rule, through) in Rule::ALL.into_iter().flat_map(|rule| THROUGHS.map(|through| (rule, through))) {
                    let plain = kind.failed().under(rule);
                    let kind = plain.found_through(through);
                    assert_eq!(kind.traits(true), plain.traits(true));
                    assert_eq!(kind.through().is_some(), through != Through::None);
                    assert_eq!(kind.0 < Kind::PLAIN, rule == Rule::Plain && through == Through::None);
                    assert_eq!((kind.class(), kind.is_writable(), kind.rule()), (Some(class), writable, Some(rule)));
                }
            }
        }
    }
}
