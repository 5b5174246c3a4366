//! Device memory: separate allocations, each in an address range of its own.
//!
//! Address bits 36 and up number the allocation, so that an access far outside of one never lands in
//! another and a report can name the nearest. Number zero holds the windows through which generic
//! addresses reach shared, local and parameter memory.

mod allocation;
mod stamps;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use thiserror::Error;

pub(crate) use allocation::{Allocation, Record};

use crate::module::{Initial, Module};
use crate::ty::Space;

const ALLOCATION_SHIFT: u32 = 36;
pub(crate) const SHARED_WINDOW: u64 = 1 << 32;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 32;
pub(crate) const PARAM_WINDOW: u64 = 3 << 32;
/// Largest single allocation.
const MAX_ALLOCATION: usize = 1 << 35;
/// Numbers of freed allocations are used again only when so many wait, which keeps a use after
/// free recognizable for long.
const QUARANTINE: usize = 4096;

/// What an address means: its space, and the address within it.
pub(crate) fn space_of(address: u64) -> (Space, u64) {
    match address >> 32 {
        1 => (Space::Shared, address & 0xffff_ffff),
        2 => (Space::Local, address & 0xffff_ffff),
        3 => (Space::Param, address & 0xffff_ffff),
        _ => (Space::Global, address),
    }
}

/// A failed request of the host.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// A size of zero or beyond what the simulator supports.
    #[error("cannot allocate {bytes} bytes for `{label}`")]
    Size {
        /// The size asked for.
        bytes: usize,
        /// The label of the allocation.
        label: String,
    },
    /// `free` of something that is not the start of a live allocation.
    #[error("{address:#x} is not the start of a live allocation")]
    NotAnAllocation {
        /// The address given.
        address: u64,
    },
    /// A host access outside of every live allocation.
    #[error("{bytes} bytes at {address:#x} are not inside an allocation (nearest: {nearest})")]
    OutOfBounds {
        /// First address of the access.
        address: u64,
        /// Its length.
        bytes: usize,
        /// The allocation that the address belongs to, if any.
        nearest: String,
    },
    /// The host reads a byte that nothing wrote.
    #[error("byte {offset} of `{label}` was never written")]
    Uninitialised {
        /// The allocation.
        label: String,
        /// Offset of the first such byte.
        offset: usize,
    },
}

#[derive(Debug)]
pub(crate) enum Slot {
    Live(Allocation),
    Freed { label: String, bytes: usize },
}

/// The device memory that launches work on.
///
/// Reads and writes take a shared reference: every byte is behind an atomic, so the host may look at
/// memory while a launch runs, and sees some value each byte had.
#[derive(Debug, Default)]
pub struct Memory {
    table: RwLock<Table>,
    /// The first launch that may overlap the next, if that is dependent.
    overlap: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    freed: VecDeque<usize>,
    /// Addresses of each module's variables; zero for those without one.
    modules: HashMap<u64, Vec<u64>>,
    launches: u64,
}

impl Memory {
    /// Empty memory.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Reserves memory, uninitialised, at an address aligned to 256 bytes.
    ///
    /// # Errors
    /// [`MemoryError::Size`] for zero bytes or more than 32 GiB.
    pub fn alloc(&mut self, bytes: usize, label: &str) -> Result<u64, MemoryError> {
        self.write_table().alloc(bytes, label)
    }

    /// Gives memory back. Kernels that still use it fault with its label.
    ///
    /// # Errors
    /// [`MemoryError::NotAnAllocation`] unless the address is the start of a live allocation.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let mut table = self.write_table();
        let index = usize::try_from(address >> ALLOCATION_SHIFT).unwrap_or(usize::MAX);
        let is_start = address.trailing_zeros() >= ALLOCATION_SHIFT;
        match table.slots.get_mut(index.wrapping_sub(1)) {
            Some(slot @ Slot::Live(_)) if is_start => {
                let Slot::Live(allocation) = &*slot else {
                    return Ok(());
                };
                let (label, bytes) = (allocation.label.clone(), allocation.bytes);
                *slot = Slot::Freed { label, bytes };
                table.freed.push_back(index - 1);
                Ok(())
            }
            _ => Err(MemoryError::NotAnAllocation { address }),
        }
    }

    /// Copies bytes to the device, as [ordered](Memory::order) between the launches before and after.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.order();
        let table = self.read_table();
        let (allocation, offset) = table.host_range(address, bytes.len())?;
        allocation.write(offset, bytes);
        Ok(())
    }

    /// Ends every launch before the next begins, also where the next is dependent: as work does that is no
    /// kernel, such as a copy, or where a graph begins.
    pub fn order(&self) {
        let next = self.read_table().launches + 1;
        self.overlap.store(next, Relaxed);
    }

    /// Writes pieces, each at its address, as a launch would that is not dependent: a kernel that the
    /// simulator does not run, whose results a dependent launch must wait for.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write_as_launch(&self, pieces: &[(u64, Vec<u8>)]) -> Result<(), MemoryError> {
        // Two, because what such a kernel reads is not known: a launch behind it must not take it for the only
        // one that it overlaps.
        let (_, first) = self.begin_launch(false);
        let (launch, _) = self.begin_launch(true);
        self.overlap.store(first, Relaxed);
        let table = self.read_table();
        for (address, bytes) in pieces {
            let (allocation, offset) = table.host_range(*address, bytes.len())?;
            allocation.write(offset, bytes);
            allocation
                .stamps()
                .write(launch, offset, bytes.len() as u32);
        }
        Ok(())
    }

    /// Copies bytes from the device.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], or [`MemoryError::Uninitialised`] for bytes never written.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let table = self.read_table();
        let (allocation, offset) = table.host_range(address, bytes.len())?;
        if let Some(offset) = allocation.first_uninitialised(offset, bytes.len()) {
            return Err(MemoryError::Uninitialised {
                label: allocation.label.clone(),
                offset,
            });
        }
        allocation.read(offset, bytes);
        Ok(())
    }

    /// Copies bytes from the device; those never written hold anything.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn read_lossy(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let table = self.read_table();
        let (allocation, offset) = table.host_range(address, bytes.len())?;
        allocation.read(offset, bytes);
        Ok(())
    }

    pub(crate) fn read_table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_table(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A launch's number, and the first launch that may still run when it begins.
    pub(crate) fn begin_launch(&self, dependent: bool) -> (u64, u64) {
        let mut table = self.write_table();
        table.launches += 1;
        let launch = table.launches;
        if launch.is_multiple_of(Record::LAUNCHES) {
            table.forget_records();
        }
        if !dependent {
            self.overlap.store(launch, Relaxed);
        }
        (launch, self.overlap.load(Relaxed))
    }

    /// A launch let the next begin only when those ahead of it had ended.
    pub(crate) fn has_waited(&self, launch: u64) {
        self.overlap.store(launch, Relaxed);
    }

    /// Addresses of the module's variables, which are made the first time.
    pub(crate) fn place(&self, module: &Module) -> Vec<u64> {
        let mut table = self.write_table();
        if let Some(addresses) = table.modules.get(&module.id) {
            return addresses.clone();
        }
        let addresses = table.place_variables(module);
        table.modules.insert(module.id, addresses.clone());
        addresses
    }
}

impl Table {
    fn alloc(&mut self, bytes: usize, label: &str) -> Result<u64, MemoryError> {
        if bytes == 0 || bytes > MAX_ALLOCATION {
            return Err(MemoryError::Size {
                bytes,
                label: label.to_owned(),
            });
        }
        let slot = Slot::Live(Allocation::new(bytes, label));
        let reused = if self.freed.len() > QUARANTINE {
            self.freed.pop_front()
        } else {
            None
        };
        let index = if let Some(index) = reused {
            self.slots[index] = slot;
            index
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        Ok((index as u64 + 1) << ALLOCATION_SHIFT)
    }

    /// The slot and offset of an address.
    #[inline]
    pub fn find(&self, address: u64) -> (Option<&Slot>, u64) {
        let index = (address >> ALLOCATION_SHIFT).wrapping_sub(1);
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| self.slots.get(index));
        (slot, address & ((1 << ALLOCATION_SHIFT) - 1))
    }

    fn host_range(&self, address: u64, bytes: usize) -> Result<(&Allocation, usize), MemoryError> {
        let out_of_bounds = |nearest: &str| MemoryError::OutOfBounds {
            address,
            bytes,
            nearest: nearest.to_owned(),
        };
        match self.find(address) {
            (Some(Slot::Live(allocation)), offset) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                if offset
                    .checked_add(bytes)
                    .is_none_or(|end| end > allocation.bytes)
                {
                    return Err(out_of_bounds(&allocation.label));
                }
                Ok((allocation, offset))
            }
            (Some(Slot::Freed { label, .. }), _) => Err(out_of_bounds(&format!("freed {label}"))),
            (None, _) => Err(out_of_bounds("none")),
        }
    }

    fn forget_records(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Live(allocation) = slot {
                allocation.forget_records();
            }
        }
    }

    fn place_variables(&mut self, module: &Module) -> Vec<u64> {
        let mut addresses = Vec::with_capacity(module.variables.len());
        for variable in &module.variables {
            let is_placed = matches!(variable.space, Space::Global | Space::Const);
            let bytes = if is_placed { variable.size as usize } else { 0 };
            addresses.push(self.alloc(bytes, &variable.name).unwrap_or(0));
        }
        let address_of = |name: &str| {
            let index = module
                .variables
                .iter()
                .position(|variable| variable.name == name);
            index.map_or(0, |index| addresses[index])
        };
        for (variable, &address) in module.variables.iter().zip(&addresses) {
            let (Some(Slot::Live(allocation)), _) = self.find(address) else {
                continue;
            };
            // Variables without a value start as zero.
            allocation.write(0, &vec![0; variable.size as usize]);
            for piece in &variable.initial {
                match piece {
                    Initial::Bytes { offset, bytes } => allocation.write(*offset as usize, bytes),
                    Initial::Address {
                        offset,
                        symbol,
                        addend,
                    } => {
                        let value = address_of(symbol).wrapping_add_signed(*addend);
                        allocation.write(*offset as usize, &value.to_le_bytes());
                    }
                }
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_accesses_stay_inside() {
        let mut memory = Memory::new();
        let a = memory.alloc(10, "a").unwrap();
        memory.write(a + 1, &[1, 2, 3]).unwrap();
        let mut back = [0; 3];
        memory.read(a + 1, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3]);
        assert_eq!(
            memory.read(a + 2, &mut back),
            Err(MemoryError::Uninitialised {
                label: "a".into(),
                offset: 4
            })
        );
        assert!(memory.read_lossy(a + 2, &mut back).is_ok());
        assert!(matches!(
            memory.write(a + 8, &[0; 3]),
            Err(MemoryError::OutOfBounds { .. })
        ));
        memory.free(a).unwrap();
        assert_eq!(
            memory.free(a),
            Err(MemoryError::NotAnAllocation { address: a })
        );
        assert!(matches!(
            memory.write(a, &[0]),
            Err(MemoryError::OutOfBounds { .. })
        ));
        assert!(memory.alloc(0, "none").is_err());
    }
}
