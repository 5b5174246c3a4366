//! Special registers.

/// A read-only register that describes the thread or the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SpecialRegister {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicSharedSize,
    TotalSharedSize,
    Clock,
    Clock64,
    ClockHi,
    GlobalTimer,
    GlobalTimerLo,
    GlobalTimerHi,
}

impl SpecialRegister {
    /// Reads a name with its component: `%tid` and `x`.
    pub fn parse(name: &str, component: Option<&str>) -> Option<SpecialRegister> {
        use SpecialRegister::*;
        if let Some(component) = component {
            let axis = match component {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            return Some(match name {
                "%tid" => Tid(axis),
                "%ntid" => Ntid(axis),
                "%ctaid" => Ctaid(axis),
                "%nctaid" => Nctaid(axis),
                _ => return None,
            });
        }
        Some(match name {
            "%laneid" => LaneId,
            "%warpid" => WarpId,
            "%nwarpid" => NWarpId,
            "%smid" => SmId,
            "%nsmid" => NSmId,
            "%gridid" => GridId,
            "%lanemask_eq" => LaneMaskEq,
            "%lanemask_le" => LaneMaskLe,
            "%lanemask_lt" => LaneMaskLt,
            "%lanemask_ge" => LaneMaskGe,
            "%lanemask_gt" => LaneMaskGt,
            "%dynamic_smem_size" => DynamicSharedSize,
            "%total_smem_size" => TotalSharedSize,
            "%clock" => Clock,
            "%clock64" => Clock64,
            "%clock_hi" => ClockHi,
            "%globaltimer" => GlobalTimer,
            "%globaltimer_lo" => GlobalTimerLo,
            "%globaltimer_hi" => GlobalTimerHi,
            _ => return None,
        })
    }

    /// Whether the register is 64 bits wide.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Clock64 | Self::GlobalTimer | Self::GridId)
    }

    /// Whether the register changes while a thread runs.
    pub fn is_clock(self) -> bool {
        matches!(
            self,
            Self::Clock
                | Self::Clock64
                | Self::ClockHi
                | Self::GlobalTimer
                | Self::GlobalTimerLo
                | Self::GlobalTimerHi
        )
    }
}
