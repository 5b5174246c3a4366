//! Instructions on 64 bits.

use crate::exec::alu::{Lanes, g, s};
use crate::exec::registers::LANES;
use crate::numeric::{float, integer};
use crate::op::{Bin64, D, R, Shift, Tri64, Un64};

impl Lanes<'_> {
    #[inline(always)]
    pub(super) fn execute_un64(&mut self, op: Un64, d: D, a: D) {
        match op {
            Un64::Mov => self.un64(d, a, |x| x),
            Un64::Not => self.un64(d, a, |x| !x),
            Un64::Cnot => self.un64(d, a, |x| u64::from(x == 0)),
            Un64::Neg => self.un64(d, a, u64::wrapping_neg),
            Un64::Abs => self.un64(d, a, |x| x.cast_signed().unsigned_abs()),
            Un64::Brev => self.un64(d, a, u64::reverse_bits),
            Un64::NegF64 => self.un64(d, a, |x| x ^ 1 << 63),
            Un64::AbsF64 => self.un64(d, a, |x| x & !(1 << 63)),
            Un64::SqrtF64 => self.un64(d, a, |x| g(x).sqrt().to_bits()),
            Un64::RcpF64 => self.un64(d, a, |x| (1.0 / g(x)).to_bits()),
        }
    }

    #[inline(always)]
    pub(super) fn execute_bin64(&mut self, op: Bin64, d: D, a: D, b: D) {
        match op {
            Bin64::Add => self.bin64(d, a, b, u64::wrapping_add),
            Bin64::Sub => self.bin64(d, a, b, u64::wrapping_sub),
            Bin64::MulLo => self.bin64(d, a, b, u64::wrapping_mul),
            Bin64::MulHiU => self.bin64(d, a, b, high_unsigned),
            Bin64::MulHiS => self.bin64(d, a, b, high_signed),
            Bin64::DivU => self.bin64(d, a, b, |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
            Bin64::DivS => self.bin64(d, a, b, |x, y| {
                let quotient = || {
                    x.cast_signed()
                        .wrapping_div(y.cast_signed())
                        .cast_unsigned()
                };
                if y == 0 { u64::MAX } else { quotient() }
            }),
            Bin64::RemU => self.bin64(d, a, b, |x, y| x.checked_rem(y).unwrap_or(x)),
            Bin64::RemS => self.bin64(d, a, b, |x, y| {
                let rest = || {
                    x.cast_signed()
                        .wrapping_rem(y.cast_signed())
                        .cast_unsigned()
                };
                if y == 0 { x } else { rest() }
            }),
            Bin64::MinU => self.bin64(d, a, b, u64::min),
            Bin64::MaxU => self.bin64(d, a, b, u64::max),
            Bin64::MinS => {
                self.bin64(d, a, b, |x, y| {
                    x.cast_signed().min(y.cast_signed()).cast_unsigned()
                });
            }
            Bin64::MaxS => {
                self.bin64(d, a, b, |x, y| {
                    x.cast_signed().max(y.cast_signed()).cast_unsigned()
                });
            }
            Bin64::And => self.bin64(d, a, b, |x, y| x & y),
            Bin64::Or => self.bin64(d, a, b, |x, y| x | y),
            Bin64::Xor => self.bin64(d, a, b, |x, y| x ^ y),
            Bin64::AddF64 => self.bin64(d, a, b, |x, y| (g(x) + g(y)).to_bits()),
            Bin64::SubF64 => self.bin64(d, a, b, |x, y| (g(x) - g(y)).to_bits()),
            Bin64::MulF64 => self.bin64(d, a, b, |x, y| (g(x) * g(y)).to_bits()),
            Bin64::DivF64 => self.bin64(d, a, b, |x, y| (g(x) / g(y)).to_bits()),
            Bin64::MinF64 => self.bin64(d, a, b, float::min64),
            Bin64::MaxF64 => self.bin64(d, a, b, float::max64),
            Bin64::CopySign => self.bin64(d, a, b, |x, y| y & !(1 << 63) | x & 1 << 63),
        }
    }

    #[inline(always)]
    pub(super) fn execute_tri64(&mut self, op: Tri64, d: D, a: D, b: D, c: D) {
        match op {
            Tri64::MadLo => self.tri64(d, a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
            Tri64::MadHiU => {
                self.tri64(d, a, b, c, |x, y, z| high_unsigned(x, y).wrapping_add(z));
            }
            Tri64::MadHiS => {
                self.tri64(d, a, b, c, |x, y, z| high_signed(x, y).wrapping_add(z));
            }
            Tri64::SadU => self.tri64(d, a, b, c, |x, y, z| x.abs_diff(y).wrapping_add(z)),
            Tri64::SadS => self.tri64(d, a, b, c, |x, y, z| {
                x.cast_signed().abs_diff(y.cast_signed()).wrapping_add(z)
            }),
            Tri64::FmaF64 => {
                self.tri64(d, a, b, c, |x, y, z| g(x).mul_add(g(y), g(z)).to_bits());
            }
        }
    }

    #[inline(always)]
    pub(super) fn execute_shift64(&mut self, op: Shift, d: D, a: D, b: R) {
        match op {
            Shift::Left => self.shift64(d, a, b, |x, y| if y < 64 { x << y } else { 0 }),
            Shift::RightU => self.shift64(d, a, b, |x, y| if y < 64 { x >> y } else { 0 }),
            Shift::RightS => self.shift64(d, a, b, |x, y| {
                (x.cast_signed() >> y.min(63)).cast_unsigned()
            }),
        }
    }

    #[inline(always)]
    pub(super) fn mul_wide(&mut self, signed: bool, d: D, a: R, b: R) {
        if signed {
            self.widen2(d, a, b, |x, y| {
                (i64::from(s(x)) * i64::from(s(y))).cast_unsigned()
            });
        } else {
            self.widen2(d, a, b, |x, y| u64::from(x) * u64::from(y));
        }
    }

    #[inline(always)]
    pub(super) fn mad_wide(&mut self, signed: bool, d: D, a: R, b: R, c: D) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r32[a as usize],
            &self.registers.r32[b as usize],
        );
        let z = &self.registers.r64[c as usize];
        for lane in 0..LANES {
            let product = if signed {
                (i64::from(s(x[lane])) * i64::from(s(y[lane]))).cast_unsigned()
            } else {
                u64::from(x[lane]) * u64::from(y[lane])
            };
            out[lane] = product.wrapping_add(z[lane]);
        }
        let known = &self.registers.defined32;
        let defined = known[a as usize] & known[b as usize];
        let defined = defined & self.registers.defined64[c as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    pub(super) fn insert64(&mut self, d: D, a: D, b: D, place: R) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r64[a as usize],
            &self.registers.r64[b as usize],
        );
        let place_values = &self.registers.r32[place as usize];
        for lane in 0..LANES {
            out[lane] = integer::insert64(x[lane], y[lane], place_values[lane]);
        }
        let known = &self.registers.defined64;
        let defined = known[a as usize] & known[b as usize];
        let defined = defined & self.registers.defined32[place as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }
}

fn high_unsigned(x: u64, y: u64) -> u64 {
    ((u128::from(x) * u128::from(y)) >> 64) as u64
}

fn high_signed(x: u64, y: u64) -> u64 {
    ((i128::from(x.cast_signed()) * i128::from(y.cast_signed())) >> 64) as u64
}
