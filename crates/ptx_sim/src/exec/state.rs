//! The state of a block: what its warps share.

use crate::exec::race::WARPS;
use crate::exec::shared::Shared;
use crate::exec::warp::Warp;
use crate::op::ReductionKind;

/// What the warps of a block share.
pub(crate) struct BlockState {
    pub index: u64,
    pub id: [u32; 3],
    pub shared: Shared,
    pub barriers: [Barrier; 16],
    /// What fences made visible.
    pub fence: [u32; WARPS],
    /// Whether a thread has fenced: memory may have come from other blocks in order.
    pub has_fenced: bool,
    /// Whether a thread has waited for earlier launches.
    pub has_waited: bool,
    /// Race clocks of this block begin here.
    pub base: u32,
}

/// One of the block's barriers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    pub arrived: u32,
    /// Threads awaited; zero for all that live.
    pub expected: u32,
    pub clock: [u32; WARPS],
    pub count: u32,
    pub all: bool,
    pub reduction: Option<(ReductionKind, u32)>,
}

impl Default for Barrier {
    fn default() -> Barrier {
        Barrier {
            arrived: 0,
            expected: 0,
            clock: [0; WARPS],
            count: 0,
            all: true,
            reduction: None,
        }
    }
}

impl BlockState {
    /// Publishes this warp's accesses and learns what earlier fences published: whoever is
    /// synchronized by flags and fences is ordered.
    pub(super) fn fence(&mut self, warp: &mut Warp) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.has_fenced = true;
        warp.clock.acquire(&self.fence);
        warp.clock.release(warp.index, &mut self.fence);
    }
}
