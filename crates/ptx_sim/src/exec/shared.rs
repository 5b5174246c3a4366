//! A block's shared memory.

use crate::exec::race::{Actor, Shadow};
use crate::exec::report::{Outcome, access};
use crate::fault::FaultKind;
use crate::lower::SHARED_BASE;
use crate::ty::Space;

const UNWRITTEN: u8 = 0;
const WRITTEN: u8 = 1;
/// A `cp.async` will write the byte.
const IN_FLIGHT: u8 = 2;

pub(crate) struct Shared {
    bytes: Vec<u8>,
    state: Vec<u8>,
    shadow: Option<Shadow>,
    check_written: bool,
}

impl Shared {
    pub fn new(bytes: usize, granule: u32, races: bool, check_written: bool) -> Shared {
        Shared {
            bytes: vec![0; bytes],
            state: vec![UNWRITTEN; bytes],
            shadow: races.then(|| Shadow::new(bytes, granule)),
            check_written,
        }
    }

    /// Forgets the previous block.
    pub fn start(&mut self, base: u32, clear: bool) {
        self.state.fill(UNWRITTEN);
        if let Some(shadow) = &mut self.shadow {
            if clear {
                shadow.clear();
            }
            shadow.start(base);
        }
    }

    /// The offset of an access that is inside and aligned.
    pub fn place(&self, lane: usize, address: u64, bytes: u32, align: u32) -> Outcome<usize> {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE));
        let end = offset.checked_add(u64::from(bytes));
        if end.is_none_or(|end| end > self.bytes.len() as u64) {
            let kind = FaultKind::OutOfBounds { bytes };
            return Err(access(kind, lane, Space::Shared, address));
        }
        if !address.is_multiple_of(u64::from(align)) {
            let kind = FaultKind::Misaligned { bytes: align };
            return Err(access(kind, lane, Space::Shared, address));
        }
        Ok(offset as usize)
    }

    /// Checks a read and gives its bytes.
    #[inline]
    pub fn read(&mut self, lane: usize, at: usize, bytes: usize, actor: Actor) -> Outcome<&[u8]> {
        let fault = |kind| {
            Err(access(
                kind,
                lane,
                Space::Shared,
                at as u64 + u64::from(SHARED_BASE),
            ))
        };
        if self.check_written
            && self.state[at..at + bytes]
                .iter()
                .any(|state| *state != WRITTEN)
        {
            let pending = self.state[at..at + bytes].contains(&IN_FLIGHT);
            let bytes = bytes as u32;
            return fault(if pending {
                FaultKind::AsyncPending { bytes }
            } else {
                FaultKind::UninitialisedRead { bytes }
            });
        }
        if let Some(shadow) = &mut self.shadow
            && let Some((kind, other)) = shadow.read(at, bytes, actor)
        {
            return fault(FaultKind::Race {
                kind,
                other: [other, 0, 0],
            });
        }
        Ok(&self.bytes[at..at + bytes])
    }

    /// Checks a write and makes it.
    #[inline]
    pub fn write(&mut self, lane: usize, at: usize, data: &[u8], actor: Actor) -> Outcome<()> {
        let target = &mut self.bytes[at..at + data.len()];
        let state = &mut self.state[at..at + data.len()];
        if let Some(shadow) = &mut self.shadow {
            let same = || *target == *data && state.iter().all(|state| *state == WRITTEN);
            if let Some((kind, other)) = shadow.write(at, data.len(), actor, same) {
                let kind = FaultKind::Race {
                    kind,
                    other: [other, 0, 0],
                };
                return Err(access(
                    kind,
                    lane,
                    Space::Shared,
                    at as u64 + u64::from(SHARED_BASE),
                ));
            }
        }
        target.copy_from_slice(data);
        state.fill(WRITTEN);
        Ok(())
    }

    /// Announces an asynchronous write: the old bytes are gone, the new ones not there yet.
    pub fn announce(&mut self, lane: usize, at: usize, bytes: usize, actor: Actor) -> Outcome<()> {
        if let Some(shadow) = &mut self.shadow
            && let Some((kind, other)) = shadow.write(at, bytes, actor, || false)
        {
            let kind = FaultKind::Race {
                kind,
                other: [other, 0, 0],
            };
            return Err(access(
                kind,
                lane,
                Space::Shared,
                at as u64 + u64::from(SHARED_BASE),
            ));
        }
        self.state[at..at + bytes].fill(IN_FLIGHT);
        Ok(())
    }
}
