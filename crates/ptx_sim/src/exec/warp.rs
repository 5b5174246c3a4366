//! A warp: its registers and the groups of lanes that run together.
//!
//! Lanes that part at a branch become *splits* with program counters of their own. They meet again
//! at the branch's reconvergence point: a [`Meeting`] counts who has come. Splits of a warp take
//! turns, so lanes may wait for each other as on devices with independent thread scheduling.

use crate::exec::launch::{Context, thread_of};
use crate::exec::race::Clock;
use crate::exec::registers::{LANES, Registers};
use crate::lower::Constant;
use crate::op::{NONE, Pc};
use crate::special::SpecialRegister;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At a warp operation that needs more lanes.
    AtWarpOp,
    /// At an aligned barrier that needs the whole warp.
    AtBarrier,
    /// Counted at the barrier of that number.
    InBarrier(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    pub pc: Pc,
    pub mask: u32,
    /// Innermost meeting that the lanes are expected at.
    pub meeting: u32,
    pub state: State,
}

/// Where lanes that parted, or a function's callers, meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meeting {
    /// Where they go on.
    pub pc: Pc,
    /// The function called, if the meeting is its return.
    pub call: Option<usize>,
    pub expected: u32,
    pub arrived: u32,
    pub parent: u32,
}

/// An asynchronous copy in flight.
pub(crate) struct Pending {
    pub lane: usize,
    /// Number of the lane's group.
    pub group: u32,
    pub at: usize,
    pub bytes: usize,
    pub data: [u8; 16],
}

pub(crate) struct Warp {
    pub index: usize,
    pub registers: Registers,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that may run while earlier launches do: they have not waited for them yet.
    pub early: u32,
    pub splits: Vec<Split>,
    pub current: usize,
    pub meetings: Vec<Meeting>,
    free_meetings: Vec<u32>,
    /// Local memory, a frame per lane, and which bytes hold defined values.
    pub local: Vec<u8>,
    pub local_defined: Vec<bool>,
    pub pending: Vec<Pending>,
    /// Committed groups of asynchronous copies, per lane.
    pub groups: [u32; LANES],
    pub clock: Clock,
    /// Instructions this warp issued: its clock register.
    pub issued: u64,
    /// Instructions since lanes last met: many mean that one lane waits for another.
    pub since_meeting: u64,
}

impl Warp {
    pub fn new(context: &Context<'_>, index: usize) -> Warp {
        let program = &context.kernel.program;
        let local = program.frame_bytes as usize * LANES;
        let mut registers = Registers::new(program);
        for &(column, value) in &program.constants32 {
            registers.r32[column as usize] = [value; LANES];
        }
        for (column, constant) in &program.constants64 {
            let value = match *constant {
                Constant::Value(value) => value,
                Constant::Variable { index, offset } => {
                    context.addresses[index].wrapping_add_signed(offset)
                }
            };
            registers.r64[*column as usize] = [value; LANES];
        }
        Warp {
            index,
            registers,
            live: 0,
            early: 0,
            splits: Vec::new(),
            current: 0,
            meetings: Vec::new(),
            free_meetings: Vec::new(),
            local: vec![0; local],
            local_defined: vec![false; local],
            pending: Vec::new(),
            groups: [0; LANES],
            clock: Clock::start(1),
            issued: 0,
            since_meeting: 0,
        }
    }

    /// Begins a block: so many threads from the warp's first on.
    pub fn start(&mut self, context: &Context<'_>, block: [u32; 3], threads: u32, base: u32) {
        let program = &context.kernel.program;
        self.live = if threads >= 32 {
            u32::MAX
        } else {
            (1 << threads) - 1
        };
        self.early = if context.launch.dependent {
            self.live
        } else {
            0
        };
        self.splits.clear();
        let (pc, mask) = (program.entry, self.live);
        self.splits.push(Split {
            pc,
            mask,
            meeting: NONE,
            state: State::Ready,
        });
        self.current = 0;
        self.meetings.clear();
        self.free_meetings.clear();
        self.local_defined
            .fill(!context.config.uninitialised_checks);
        self.pending.clear();
        self.groups = [0; LANES];
        self.clock = Clock::start(base);
        self.issued = 0;
        self.since_meeting = 0;
        self.registers.reset(context.config.uninitialised_checks);
        for &(column, _) in &program.constants32 {
            self.registers.defined32[column as usize] = u32::MAX;
        }
        for (column, _) in &program.constants64 {
            self.registers.defined64[*column as usize] = u32::MAX;
        }
        for &(special, column) in &program.specials {
            self.fill_special(context, block, special, column);
        }
    }

    fn fill_special(
        &mut self,
        context: &Context<'_>,
        block: [u32; 3],
        special: SpecialRegister,
        column: u32,
    ) {
        use SpecialRegister::*;
        if special.is_wide() {
            // The grid's number is the only wide register that does not change.
            self.registers.r64[column as usize] = [context.launch_id; LANES];
            self.registers.defined64[column as usize] = u32::MAX;
            return;
        }
        let launch = context.launch;
        let threads: u32 = launch.block.iter().product();
        let first = self.index as u32 * 32;
        let value = |lane: u32| match special {
            Tid(axis) => thread_of(first + lane, launch.block)[axis as usize],
            Ntid(axis) => launch.block[axis as usize],
            Ctaid(axis) => block[axis as usize],
            Nctaid(axis) => launch.grid[axis as usize],
            LaneId => lane,
            WarpId => self.index as u32,
            NWarpId => threads.div_ceil(32),
            NSmId => 1,
            LaneMaskEq => 1 << lane,
            LaneMaskLt => (1 << lane) - 1,
            LaneMaskLe => ((1 << lane) - 1) | (1 << lane),
            LaneMaskGt => !(((1 << lane) - 1) | (1 << lane)),
            LaneMaskGe => !((1 << lane) - 1),
            DynamicSharedSize => launch.dynamic_shared,
            TotalSharedSize => launch.dynamic_shared + context.kernel.static_shared_bytes(),
            // One multiprocessor; clocks are read by their own instruction.
            SmId | GridId | Clock | Clock64 | ClockHi | GlobalTimer | GlobalTimerLo
            | GlobalTimerHi => 0,
        };
        let mut values = [0; LANES];
        for (lane, slot) in values.iter_mut().enumerate() {
            *slot = value(lane as u32);
        }
        self.registers.r32[column as usize] = values;
        self.registers.defined32[column as usize] = u32::MAX;
    }

    /// Moves to a split that can run; whether there is one.
    pub fn pick(&mut self) -> bool {
        let count = self.splits.len();
        for step in 0..count {
            let candidate = (self.current + step) % count;
            if self.splits[candidate].state == State::Ready {
                self.current = candidate;
                return true;
            }
        }
        false
    }

    pub fn new_meeting(&mut self, meeting: Meeting) -> u32 {
        match self.free_meetings.pop() {
            Some(index) => {
                self.meetings[index as usize] = meeting;
                index
            }
            None => {
                self.meetings.push(meeting);
                (self.meetings.len() - 1) as u32
            }
        }
    }

    /// Sends lanes of the current split elsewhere; the rest stays.
    pub fn part(&mut self, mask: u32, pc: Pc) {
        let split = &mut self.splits[self.current];
        split.mask &= !mask;
        let split = Split {
            pc,
            mask,
            meeting: split.meeting,
            state: State::Ready,
        };
        self.splits.push(split);
    }

    /// Expects the current split's lanes at a reconvergence point.
    pub fn expect(&mut self, reconverge: Pc) {
        if reconverge == NONE {
            return;
        }
        let split = self.splits[self.current];
        if split.meeting != NONE {
            let top = &self.meetings[split.meeting as usize];
            if top.pc == reconverge && top.call.is_none() {
                return;
            }
        }
        let meeting = self.new_meeting(Meeting {
            pc: reconverge,
            call: None,
            expected: split.mask,
            arrived: 0,
            parent: split.meeting,
        });
        self.splits[self.current].meeting = meeting;
    }

    /// The current split has come to its meeting; it goes on with all if it is the last.
    pub fn arrive(&mut self) {
        let split = self.splits[self.current];
        let meeting = &mut self.meetings[split.meeting as usize];
        meeting.arrived |= split.mask;
        if meeting.arrived == meeting.expected {
            let Meeting {
                pc,
                arrived,
                parent,
                ..
            } = *meeting;
            self.free_meetings.push(split.meeting);
            self.since_meeting = 0;
            self.splits[self.current] = Split {
                pc,
                mask: arrived,
                meeting: parent,
                state: State::Ready,
            };
        } else {
            self.splits.swap_remove(self.current);
        }
    }

    /// Ends lanes of the current split and completes the meetings that waited for them only.
    pub fn exit(&mut self, mask: u32) {
        self.live &= !mask;
        let mut at = self.splits[self.current].meeting;
        self.splits[self.current].mask &= !mask;
        if self.splits[self.current].mask == 0 {
            self.splits.swap_remove(self.current);
        }
        while at != NONE {
            let meeting = &mut self.meetings[at as usize];
            meeting.expected &= !mask;
            let Meeting {
                pc,
                expected,
                arrived,
                parent,
                ..
            } = *meeting;
            if expected == arrived {
                if arrived != 0 {
                    let split = Split {
                        pc,
                        mask: arrived,
                        meeting: parent,
                        state: State::Ready,
                    };
                    self.splits.push(split);
                }
                self.free_meetings.push(at);
            }
            at = parent;
        }
    }

    /// Lets lanes that wait at a meeting go ahead: another lane may be waiting for them.
    pub fn release_waiting(&mut self) {
        self.since_meeting = 0;
        let mut at = self
            .splits
            .get(self.current)
            .map_or(NONE, |split| split.meeting);
        while at != NONE {
            let meeting = &mut self.meetings[at as usize];
            let Meeting {
                pc,
                arrived,
                parent,
                call,
                ..
            } = *meeting;
            if arrived != 0 && call.is_none() {
                meeting.expected &= !arrived;
                meeting.arrived = 0;
                self.splits.push(Split {
                    pc,
                    mask: arrived,
                    meeting: parent,
                    state: State::Ready,
                });
                return;
            }
            at = parent;
        }
    }
}
