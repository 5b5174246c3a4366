//! A warp's register files: columns of 32 lanes, with a mask of the lanes that hold a defined value.
//!
//! Undefined values spread through arithmetic like poison and fault where they would matter: in an
//! address, a guard, or a store that other threads can see.

use crate::lower::Program;
use crate::op::{Column, D, P, R};

pub(crate) const LANES: usize = 32;

pub(crate) struct Registers {
    pub r32: Vec<[u32; LANES]>,
    pub r64: Vec<[u64; LANES]>,
    pub pred: Vec<u32>,
    pub defined32: Vec<u32>,
    pub defined64: Vec<u32>,
    pub defined_pred: Vec<u32>,
}

impl Registers {
    pub fn new(program: &Program) -> Registers {
        Registers {
            r32: vec![[0; LANES]; program.registers32],
            r64: vec![[0; LANES]; program.registers64],
            pred: vec![0; program.predicates],
            defined32: vec![0; program.registers32],
            defined64: vec![0; program.registers64],
            defined_pred: vec![0; program.predicates],
        }
    }

    /// Forgets every value; constants must be written again.
    pub fn reset(&mut self, track_undefined: bool) {
        let defined = if track_undefined { 0 } else { u32::MAX };
        self.defined32.fill(defined);
        self.defined64.fill(defined);
        self.defined_pred.fill(defined);
    }

    /// Whether a column is defined in all lanes of the mask.
    pub fn is_defined(&self, column: Column, mask: u32) -> bool {
        let defined = match column {
            Column::R32(r) | Column::R16(r) | Column::R8(r) => self.defined32[r as usize],
            Column::R64(d) => self.defined64[d as usize],
            Column::Discard => u32::MAX,
        };
        defined & mask == mask
    }

    pub fn get(&self, column: Column, lane: usize) -> u64 {
        match column {
            Column::R32(r) | Column::R16(r) | Column::R8(r) => {
                u64::from(self.r32[r as usize][lane])
            }
            Column::R64(d) => self.r64[d as usize][lane],
            Column::Discard => 0,
        }
    }

    /// Writes one lane, truncated to the register's width.
    pub fn set(&mut self, column: Column, lane: usize, value: u64) {
        match column {
            Column::R32(r) => self.r32[r as usize][lane] = value as u32,
            Column::R16(r) => self.r32[r as usize][lane] = u32::from(value as u16),
            Column::R8(r) => self.r32[r as usize][lane] = u32::from(value as u8),
            Column::R64(d) => self.r64[d as usize][lane] = value,
            Column::Discard => {}
        }
    }

    /// Marks the lanes of the mask as defined where `defined` has them.
    pub fn define(&mut self, column: Column, mask: u32, defined: u32) {
        match column {
            Column::R32(r) | Column::R16(r) | Column::R8(r) => self.define32(r, mask, defined),
            Column::R64(d) => self.define64(d, mask, defined),
            Column::Discard => {}
        }
    }

    #[inline(always)]
    pub fn define32(&mut self, r: R, mask: u32, defined: u32) {
        let slot = &mut self.defined32[r as usize];
        *slot = *slot & !mask | defined & mask;
    }

    #[inline(always)]
    pub fn define64(&mut self, d: D, mask: u32, defined: u32) {
        let slot = &mut self.defined64[d as usize];
        *slot = *slot & !mask | defined & mask;
    }

    #[inline(always)]
    pub fn write32(&mut self, r: R, mask: u32, value: &[u32; LANES]) {
        let column = &mut self.r32[r as usize];
        if mask == u32::MAX {
            *column = *value;
        } else {
            for lane in 0..LANES {
                let keep = ((mask >> lane) & 1).wrapping_sub(1);
                column[lane] = column[lane] & keep | value[lane] & !keep;
            }
        }
    }

    #[inline(always)]
    pub fn write64(&mut self, d: D, mask: u32, value: &[u64; LANES]) {
        let column = &mut self.r64[d as usize];
        if mask == u32::MAX {
            *column = *value;
        } else {
            for lane in 0..LANES {
                let keep = u64::from((mask >> lane) & 1).wrapping_sub(1);
                column[lane] = column[lane] & keep | value[lane] & !keep;
            }
        }
    }

    #[inline(always)]
    pub fn write_pred(&mut self, p: P, mask: u32, value: u32, defined: u32) {
        let slot = &mut self.pred[p as usize];
        *slot = *slot & !mask | value & mask;
        let slot = &mut self.defined_pred[p as usize];
        *slot = *slot & !mask | defined & mask;
    }
}

/// The lanes of a mask, in order.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}
