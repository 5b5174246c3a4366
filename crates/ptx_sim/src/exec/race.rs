//! Which accesses are ordered.
//!
//! Every warp has a clock that its synchronizing operations advance, and knows the latest time of
//! every other warp that a barrier or fence made visible to it. An earlier access is ordered before
//! the current one if the same thread made it, if it is by another lane of the warp and a warp-level
//! synchronization came between, or if it is by another warp at a time the current one knows.

use crate::fault::RaceKind;

/// Warps in the largest block.
pub(crate) const WARPS: usize = 32;

/// A warp's knowledge of time.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub now: u32,
    /// Latest known time of each warp.
    pub seen: [u32; WARPS],
}

impl Clock {
    pub fn start(base: u32) -> Clock {
        Clock {
            now: base,
            seen: [base - 1; WARPS],
        }
    }

    /// Lanes of the warp have synchronized.
    pub fn tick(&mut self) {
        self.now += 1;
    }

    /// Publishes everything this warp did and knows, and moves on.
    pub fn release(&mut self, warp: usize, into: &mut [u32; WARPS]) {
        for (into, seen) in into.iter_mut().zip(&self.seen) {
            *into = (*into).max(*seen);
        }
        into[warp] = into[warp].max(self.now);
        self.tick();
    }

    /// Learns what others published.
    pub fn acquire(&mut self, from: &[u32; WARPS]) {
        for (seen, from) in self.seen.iter_mut().zip(from) {
            *seen = (*seen).max(*from);
        }
    }
}

/// The thread that makes an access.
#[derive(Clone, Copy)]
pub(crate) struct Actor<'c> {
    /// Linear number in the block.
    pub thread: u32,
    pub clock: &'c Clock,
    /// Atomic or relaxed accesses do not race with each other.
    pub atomic: bool,
    /// Whether the thread has yet to wait for earlier launches.
    pub early: bool,
}

impl Actor<'_> {
    /// Whether an access by `thread` at time `then` comes before this one.
    #[inline]
    pub fn is_after(&self, thread: u32, then: u32) -> bool {
        if thread == self.thread {
            return true;
        }
        let warp = thread / 32;
        if warp == self.thread / 32 {
            then < self.clock.now
        } else {
            self.clock.seen[warp as usize % WARPS] >= then
        }
    }
}

/// A conflict: its kind and the thread that came first.
pub(crate) type Conflict = (RaceKind, u32);

const ATOMIC: u64 = 1 << 63;
const THREAD_BITS: u32 = 10;

/// Last accesses of each granule of shared memory.
pub(crate) struct Shadow {
    shift: u32,
    writes: Vec<u64>,
    /// Two reads that are not ordered before each other, or one.
    reads: Vec<[u64; 2]>,
    /// Times before this are of earlier blocks.
    base: u32,
}

fn thread_of(record: u64) -> u32 {
    record as u32 & ((1 << THREAD_BITS) - 1)
}

fn time_of(record: u64) -> u32 {
    ((record & !ATOMIC) >> THREAD_BITS) as u32
}

impl Shadow {
    /// For memory of so many bytes, tracked in granules of 1, 2 or 4.
    pub fn new(bytes: usize, granule: u32) -> Shadow {
        let shift = granule.trailing_zeros();
        let count = bytes.div_ceil(granule as usize);
        Shadow {
            shift,
            writes: vec![0; count],
            reads: vec![[0; 2]; count],
            base: 1,
        }
    }

    pub fn start(&mut self, base: u32) {
        self.base = base;
    }

    pub fn clear(&mut self) {
        self.writes.fill(0);
        self.reads.fill([0; 2]);
    }

    fn conflicts(&self, record: u64, actor: Actor) -> bool {
        let time = time_of(record);
        time >= self.base
            && !(actor.atomic && record & ATOMIC != 0)
            && !actor.is_after(thread_of(record), time)
    }

    fn record(actor: Actor) -> u64 {
        let atomic = if actor.atomic { ATOMIC } else { 0 };
        atomic | u64::from(actor.clock.now) << THREAD_BITS | u64::from(actor.thread)
    }

    fn granules(&self, offset: usize, bytes: usize) -> std::ops::Range<usize> {
        offset >> self.shift..((offset + bytes - 1) >> self.shift) + 1
    }

    #[inline]
    pub fn read(&mut self, offset: usize, bytes: usize, actor: Actor) -> Option<Conflict> {
        let new = Self::record(actor);
        for granule in self.granules(offset, bytes) {
            let write = self.writes[granule];
            if self.conflicts(write, actor) {
                return Some((RaceKind::ReadAfterWrite, thread_of(write)));
            }
            let [first, _] = self.reads[granule];
            let is_stale = time_of(first) < self.base;
            let slot = usize::from(!is_stale && !actor.is_after(thread_of(first), time_of(first)));
            self.reads[granule][slot] = new;
            if slot == 0 {
                self.reads[granule][1] = 0;
            }
        }
        None
    }

    /// A write; `same_value` tells that memory already holds what is written.
    #[inline]
    pub fn write(
        &mut self,
        offset: usize,
        bytes: usize,
        actor: Actor,
        same_value: impl Fn() -> bool,
    ) -> Option<Conflict> {
        let new = Self::record(actor);
        for granule in self.granules(offset, bytes) {
            let write = self.writes[granule];
            if self.conflicts(write, actor) && !same_value() {
                return Some((RaceKind::WriteAfterWrite, thread_of(write)));
            }
            for read in self.reads[granule] {
                if self.conflicts(read, actor) && !same_value() {
                    return Some((RaceKind::WriteAfterRead, thread_of(read)));
                }
            }
            self.writes[granule] = new;
            self.reads[granule] = [0; 2];
        }
        None
    }
}
