//! What is registered now: the table of each ring, and the sums over them.

/// Rings with a table that are followed at a time.
pub const TABLES: usize = 16384;

/// Value of the map `TABLES`, by address of the `io_ring_ctx`: a ring's table of buffers, from the registration that
/// made it until the kernel lets it go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Bytes of its buffers.
    pub bytes: u64,
    /// Its buffers; empty slots are none.
    pub buffers: u32,
    /// Not 0 where it is not known what is in it: then the others are 0.
    pub unknown: u32,
}

impl Table {
    /// One of which it is not known what is in it.
    pub const UNKNOWN: Self = Self { bytes: 0, buffers: 0, unknown: 1 };
}

/// The one value of the map `REGISTERED`: sums over the map `TABLES`, kept as they change, so that reading them does not
/// take a walk over all rings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Bytes of the tables that are known.
    pub bytes: u64,
    /// Their buffers.
    pub buffers: u64,
    /// Tables that are not known.
    pub unknown: u64,
    /// Tables that found no room in the map, since the start. After the first the sums are too low for good.
    pub lost: u64,
}
