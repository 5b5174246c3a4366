//! A block: its warps take turns until all have ended.

use std::sync::atomic::Ordering::Relaxed;

use crate::exec::barrier;
use crate::exec::launch::{Context, thread_of};
use crate::exec::race::WARPS;
use crate::exec::report::{Trouble, complete};
use crate::exec::shared::Shared;
use crate::exec::state::{Barrier, BlockState};
use crate::exec::step;
use crate::exec::warp::{State, Warp};
use crate::fault::{Fault, FaultKind};
use crate::op::Pc;

/// Instructions a warp issues before the next has its turn.
const TURN: u64 = 4096;
/// Race clocks start over, with clean records, before they overflow.
const CLOCK_LIMIT: u32 = 1 << 30;

pub(crate) struct Block {
    warps: Vec<Warp>,
    state: BlockState,
}

impl Block {
    pub fn new(context: &Context<'_>) -> Block {
        let threads: u32 = context.launch.block.iter().product();
        let program = &context.kernel.program;
        let bytes = (program.static_shared_bytes + context.launch.dynamic_shared) as usize;
        let races = context.config.race_checks && threads > 1;
        let written = context.config.uninitialised_checks;
        Block {
            warps: (0..threads.div_ceil(32) as usize)
                .map(|w| Warp::new(context, w))
                .collect(),
            state: BlockState {
                index: 0,
                id: [0; 3],
                shared: Shared::new(bytes, program.granule, races, written),
                barriers: [Barrier::default(); 16],
                fence: [0; WARPS],
                has_fenced: false,
                has_waited: false,
                base: 1,
            },
        }
    }

    /// Begins the block of that linear number.
    pub fn start(&mut self, context: &Context<'_>, index: u64) {
        let [x, y, _] = context.launch.grid.map(u64::from);
        let state = &mut self.state;
        state.index = index;
        state.id = [index % x, index / x % y, index / x / y].map(|axis| axis as u32);
        let latest = self
            .warps
            .iter()
            .map(|warp| warp.clock.now)
            .max()
            .unwrap_or(0);
        let restart = latest > CLOCK_LIMIT;
        state.base = if restart { 1 } else { latest + 1 };
        state.shared.start(state.base, restart);
        state.barriers = [Barrier::default(); 16];
        state.fence = [state.base - 1; WARPS];
        state.has_fenced = false;
        state.has_waited = false;
        let threads: u32 = context.launch.block.iter().product();
        for (w, warp) in self.warps.iter_mut().enumerate() {
            warp.start(context, state.id, threads - w as u32 * 32, state.base);
        }
    }

    /// Gives every warp one turn; whether the block has ended.
    pub fn turn(&mut self, context: &Context<'_>) -> Result<bool, Box<Fault>> {
        let mut progressed = false;
        for w in 0..self.warps.len() {
            let warp = &mut self.warps[w];
            if warp.live == 0 {
                continue;
            }
            let mut executed = 0;
            let result = step::run(context, &mut self.state, warp, TURN, &mut executed);
            progressed |= executed != 0;
            let total = context.executed.fetch_add(executed, Relaxed) + executed;
            if let Err(trouble) = result {
                return Err(self.fault(context, w, *trouble));
            }
            if total > context.config.instruction_budget && self.warps[w].live != 0 {
                let budget = context.config.instruction_budget;
                let kind = FaultKind::BudgetExceeded { budget };
                return Err(self.fault(context, w, *Box::<Trouble>::from(kind)));
            }
            let code = &context.kernel.program.code;
            match barrier::gather(&mut self.state, &mut self.warps[w], code) {
                Ok(arrived) => progressed |= arrived,
                Err(trouble) => return Err(self.fault(context, w, *trouble)),
            }
        }
        progressed |= barrier::complete(&mut self.state, &mut self.warps);
        if self.warps.iter().all(|warp| warp.live == 0) {
            if context.launch.dependent && !self.state.has_waited {
                let trouble = Box::<Trouble>::from(FaultKind::NoGridWait);
                // No instruction is to blame.
                return Err(complete(context, *trouble, Pc::MAX, self.state.id, 0));
            }
            return Ok(true);
        }
        if !progressed && !self.warps.iter_mut().any(Warp::pick) {
            return Err(self.stuck(context));
        }
        Ok(false)
    }

    /// Why nothing can go on.
    fn stuck(&mut self, context: &Context<'_>) -> Box<Fault> {
        let find = |wanted: fn(State) -> bool| {
            self.warps.iter().enumerate().find_map(|(w, warp)| {
                let at = warp.splits.iter().position(|split| wanted(split.state))?;
                Some((w, at))
            })
        };
        let (w, at, kind) = if let Some((w, at)) = find(|state| state == State::AtWarpOp) {
            let missing = self.warps[w].live & !self.warps[w].splits[at].mask;
            (w, at, FaultKind::DivergentWarp { missing })
        } else if let Some((w, at)) = find(|state| state == State::AtBarrier) {
            (w, at, FaultKind::DivergentBarrier)
        } else if let Some((w, at)) = find(|state| matches!(state, State::InBarrier(_))) {
            (w, at, FaultKind::BarrierDeadlock)
        } else {
            (0, 0, FaultKind::BarrierDeadlock)
        };
        self.warps[w].current = at;
        self.fault(context, w, *Box::<Trouble>::from(kind))
    }

    fn fault(&self, context: &Context<'_>, w: usize, mut trouble: Trouble) -> Box<Fault> {
        let warp = &self.warps[w];
        let split = warp.splits.get(warp.current);
        let (pc, mask) = split.map_or((0, 1), |split| (split.pc, split.mask));
        let lane = trouble.lane.unwrap_or(mask.trailing_zeros() as usize % 32);
        if let FaultKind::Race { other, .. } = &mut trouble.kind {
            *other = thread_of(other[0], context.launch.block);
        }
        complete(
            context,
            trouble,
            pc,
            self.state.id,
            w as u32 * 32 + lane as u32,
        )
    }
}
