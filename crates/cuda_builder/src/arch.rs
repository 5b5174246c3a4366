//! GPU architectures.

use std::fmt;

/// An architecture by its compute capability. PTX for one runs on it and on all later ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NvvmArch {
    /// Ampere, data center (A100).
    #[default]
    Compute80,
    /// Ampere.
    Compute86,
    /// Ada.
    Compute89,
    /// Hopper.
    Compute90,
    /// Blackwell, data center.
    Compute100,
    /// Blackwell.
    Compute120,
}

impl NvvmArch {
    /// The compute capability as one number: 80 for 8.0, 120 for 12.0.
    pub const fn number(self) -> u32 {
        match self {
            Self::Compute80 => 80,
            Self::Compute86 => 86,
            Self::Compute89 => 89,
            Self::Compute90 => 90,
            Self::Compute100 => 100,
            Self::Compute120 => 120,
        }
    }

    /// The PTX version to write, as LLVM's feature: 7.8 (driver 520) knows every instruction and
    /// cache hint that Ampere to Hopper have; Blackwell came later.
    pub(crate) const fn ptx_feature(self) -> &'static str {
        match self {
            Self::Compute100 => "+ptx86",
            Self::Compute120 => "+ptx87",
            _ => "+ptx78",
        }
    }
}

impl fmt::Display for NvvmArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}
