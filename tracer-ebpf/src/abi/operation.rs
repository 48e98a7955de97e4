//! The operations on a ring's buffer table, and the opcodes of `io_uring_register(2)` they stand for.

/// What a registration did.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "json", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum Operation {
    /// `IORING_REGISTER_BUFFERS` and `IORING_REGISTER_BUFFERS2`.
    Register = 0,
    /// `IORING_REGISTER_BUFFERS_UPDATE`.
    Update = 1,
    /// `IORING_REGISTER_CLONE_BUFFERS`, since 6.12.
    Clone = 2,
    /// `IORING_UNREGISTER_BUFFERS`.
    Unregister = 3,
}

impl Operation {
    /// How many there are; arrays indexed by operation have this length.
    pub const COUNT: usize = 4;

    /// Every operation, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [Self::Register, Self::Update, Self::Clone, Self::Unregister];

    /// The operation with this number, if there is one.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Register),
            1 => Some(Self::Update),
            2 => Some(Self::Clone),
            3 => Some(Self::Unregister),
            _ => None,
        }
    }

    /// The operation an opcode of `io_uring_register(2)` asks for; `None` for all that concern no buffers.
    ///
    /// Bit 31 says that the fd is an index of a registered ring (since 6.3); it is masked here.
    #[inline(always)]
    pub const fn from_opcode(opcode: u32) -> Option<Self> {
        match opcode & 0x7fff_ffff {
            0 | 15 => Some(Self::Register),
            1 => Some(Self::Unregister),
            16 => Some(Self::Update),
            30 => Some(Self::Clone),
            _ => None,
        }
    }

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Update => "update",
            Self::Clone => "clone",
            Self::Unregister => "unregister",
        }
    }
}
