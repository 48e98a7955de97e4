//! What a call that installs buffers does to its ring's table.

/// How buffers came into a ring's table.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "json", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum Installation {
    /// A whole table: a register.
    Table = 0,
    /// An update of empty slots alone.
    Fill = 1,
    /// An update of a slot that held a buffer.
    Replacement = 2,
    /// An update of which it is not known what its slots held.
    Update = 3,
    /// A clone of another ring's buffers.
    Clone = 4,
}

impl Installation {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// How many of them pin pages: all but the last.
    pub const PINNING: usize = 4;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Table, Self::Fill, Self::Replacement, Self::Update, Self::Clone];

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Fill => "fill",
            Self::Replacement => "replacement",
            Self::Update => "update",
            Self::Clone => "clone",
        }
    }

    /// Whether it pins pages and may do so in the place of buffers that were there: not a fill, which is set-up, nor a
    /// clone, which pins nothing.
    pub const fn may_switch(self) -> bool {
        matches!(self, Self::Table | Self::Replacement | Self::Update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(Installation::ALL.iter().enumerate().all(|(place, one)| *one as usize == place));
        assert_eq!(Installation::ALL[Installation::PINNING], Installation::Clone);
    }
}
