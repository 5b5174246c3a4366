//! Runs stretches of arithmetic over all lanes at once.
//!
//! Every operation computes all 32 lanes, active or not, and writes back under the mask: lanes are
//! independent, nothing traps, and the loops vectorize.

mod convert;
mod long;
mod predicate;
mod word;

use crate::exec::registers::{LANES, Registers};
use crate::numeric::{approx, float, integer};
use crate::op::{Alu, D, Instr, NONE, Op, R};

/// Executes arithmetic from the start of `code` until something else or a guard that is not
/// defined; gives the number of instructions executed.
pub(crate) fn run(
    registers: &mut Registers,
    code: &[Instr],
    active: u32,
    vector: VectorUnit,
) -> usize {
    match vector {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `VectorUnit::detect` gives this variant only where the processor has every
        // feature that the function enables.
        VectorUnit::Avx2 => unsafe { run_avx2(registers, code, active) },
        VectorUnit::Portable => run_here(registers, code, active),
    }
}

/// What the loops over lanes are compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum VectorUnit {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl VectorUnit {
    pub fn detect() -> VectorUnit {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("popcnt")
            && std::arch::is_x86_feature_detected!("lzcnt")
        {
            return VectorUnit::Avx2;
        }
        VectorUnit::Portable
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,popcnt,lzcnt")]
fn run_avx2(registers: &mut Registers, code: &[Instr], active: u32) -> usize {
    run_here(registers, code, active)
}

#[inline(always)]
fn run_here(registers: &mut Registers, code: &[Instr], active: u32) -> usize {
    for (count, instr) in code.iter().enumerate() {
        let Op::Alu(alu) = &instr.op else {
            return count;
        };
        let mut mask = active;
        if instr.guard != NONE {
            let guard = instr.guard as usize;
            if registers.defined_pred[guard] & active != active {
                return count;
            }
            let value = registers.pred[guard];
            mask &= if instr.guard_inverted { !value } else { value };
            if mask == 0 {
                continue;
            }
        }
        Lanes { registers, mask }.execute(alu);
    }
    code.len()
}

struct Lanes<'r> {
    registers: &'r mut Registers,
    mask: u32,
}

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

fn g(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn s(bits: u32) -> i32 {
    bits.cast_signed()
}

/// Sign-extends a 16-bit value.
fn s16(bits: u32) -> i32 {
    i32::from((bits as u16).cast_signed())
}

fn low16(value: i32) -> u32 {
    value.cast_unsigned() & 0xffff
}

impl Lanes<'_> {
    #[inline(always)]
    fn un32(&mut self, d: R, a: R, op: impl Fn(u32) -> u32) {
        let mut out = [0; LANES];
        let x = &self.registers.r32[a as usize];
        for lane in 0..LANES {
            out[lane] = op(x[lane]);
        }
        let defined = self.registers.defined32[a as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    #[inline(always)]
    fn bin32(&mut self, d: R, a: R, b: R, op: impl Fn(u32, u32) -> u32) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r32[a as usize],
            &self.registers.r32[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane]);
        }
        let defined = self.registers.defined32[a as usize] & self.registers.defined32[b as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    #[inline(always)]
    fn tri32(&mut self, d: R, a: R, b: R, c: R, op: impl Fn(u32, u32, u32) -> u32) {
        let mut out = [0; LANES];
        let file = &self.registers.r32;
        let (x, y, z) = (&file[a as usize], &file[b as usize], &file[c as usize]);
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane], z[lane]);
        }
        let known = &self.registers.defined32;
        let defined = known[a as usize] & known[b as usize] & known[c as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    #[inline(always)]
    fn un64(&mut self, d: D, a: D, op: impl Fn(u64) -> u64) {
        let mut out = [0; LANES];
        let x = &self.registers.r64[a as usize];
        for lane in 0..LANES {
            out[lane] = op(x[lane]);
        }
        let defined = self.registers.defined64[a as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn bin64(&mut self, d: D, a: D, b: D, op: impl Fn(u64, u64) -> u64) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r64[a as usize],
            &self.registers.r64[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane]);
        }
        let defined = self.registers.defined64[a as usize] & self.registers.defined64[b as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn tri64(&mut self, d: D, a: D, b: D, c: D, op: impl Fn(u64, u64, u64) -> u64) {
        let mut out = [0; LANES];
        let file = &self.registers.r64;
        let (x, y, z) = (&file[a as usize], &file[b as usize], &file[c as usize]);
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane], z[lane]);
        }
        let known = &self.registers.defined64;
        let defined = known[a as usize] & known[b as usize] & known[c as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn widen(&mut self, d: D, a: R, op: impl Fn(u32) -> u64) {
        let mut out = [0; LANES];
        let x = &self.registers.r32[a as usize];
        for lane in 0..LANES {
            out[lane] = op(x[lane]);
        }
        let defined = self.registers.defined32[a as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn widen2(&mut self, d: D, a: R, b: R, op: impl Fn(u32, u32) -> u64) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r32[a as usize],
            &self.registers.r32[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane]);
        }
        let defined = self.registers.defined32[a as usize] & self.registers.defined32[b as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn narrow(&mut self, d: R, a: D, op: impl Fn(u64) -> u32) {
        let mut out = [0; LANES];
        let x = &self.registers.r64[a as usize];
        for lane in 0..LANES {
            out[lane] = op(x[lane]);
        }
        let defined = self.registers.defined64[a as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    #[inline(always)]
    fn shift64(&mut self, d: D, a: D, b: R, op: impl Fn(u64, u32) -> u64) {
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r64[a as usize],
            &self.registers.r32[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = op(x[lane], y[lane]);
        }
        let defined = self.registers.defined64[a as usize] & self.registers.defined32[b as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    #[inline(always)]
    fn execute(&mut self, alu: &Alu) {
        match *alu {
            Alu::Un32(op, d, a) => self.execute_un32(op, d, a),
            Alu::Bin32(op, d, a, b) => self.execute_bin32(op, d, a, b),
            Alu::Tri32(op, d, a, b, c) => self.execute_tri32(op, d, a, b, c),
            Alu::Lop3 { lut, d, a, b, c } => self.lop3(lut, d, a, b, c),
            Alu::Float(op, mode, d, [a, b, c]) => {
                self.tri32(d, a, b, c, |x, y, z| float::apply(op, mode, [x, y, z]));
            }
            Alu::Approx(op, ftz, d, a) => self.active_un32(d, a, |x| approx::apply(op, ftz, x)),
            Alu::Half(op, mode, d, sources) => self.half(op, mode, d, sources),
            Alu::Un64(op, d, a) => self.execute_un64(op, d, a),
            Alu::Bin64(op, d, a, b) => self.execute_bin64(op, d, a, b),
            Alu::Tri64(op, d, a, b, c) => self.execute_tri64(op, d, a, b, c),
            Alu::Shift64(op, d, a, b) => self.execute_shift64(op, d, a, b),
            Alu::Extract64 {
                signed,
                d,
                a,
                place,
            } => {
                self.shift64(d, a, place, |x, place| integer::extract64(signed, x, place));
            }
            Alu::Insert64 { d, a, b, place } => self.insert64(d, a, b, place),
            Alu::Widen(op, d, a) => self.execute_widen(op, d, a),
            Alu::Narrow(op, d, a) => self.execute_narrow(op, d, a),
            Alu::MulWide { signed, d, a, b } => self.mul_wide(signed, d, a, b),
            Alu::MadWide { signed, d, a, b, c } => self.mad_wide(signed, d, a, b, c),
            Alu::Pack64 { d, low, high } => {
                self.widen2(d, low, high, |x, y| u64::from(x) | u64::from(y) << 32);
            }
            Alu::Convert(conversion, d, a) => self.convert(&conversion, d, a),
            Alu::ConvertPair {
                bf16,
                relu,
                toward_zero,
                d,
                a,
                b,
            } => {
                self.convert_pair(bf16, relu, toward_zero, d, a, b);
            }
            Alu::Carry {
                subtract,
                carry_in,
                carry_out,
                cc,
                d,
                a,
                b,
            } => {
                self.carry([subtract, carry_in, carry_out], cc, d, a, b);
            }
            Alu::Compare {
                ty,
                cmp,
                p,
                q,
                a,
                b,
                combine,
            } => {
                let (truth, defined) = self.compare(ty, cmp, a, b);
                self.set_compared([p, q], truth, defined, combine);
            }
            Alu::Select32 { d, a, b, p } => self.select32(d, a, b, p),
            Alu::Select64 { d, a, b, p } => self.select64(d, a, b, p),
            Alu::Pred(op, d, a, b) => self.combine_predicates(op, d, a, b),
            Alu::NotPred { d, a } => {
                let value = !self.registers.pred[a as usize];
                let defined = self.registers.defined_pred[a as usize];
                self.registers.write_pred(d, self.mask, value, defined);
            }
            Alu::SetPred { d, value } => {
                let value = if value { u32::MAX } else { 0 };
                self.registers.write_pred(d, self.mask, value, u32::MAX);
            }
            Alu::IsSpace { space, p, a } => self.is_space(space, p, a),
            Alu::TestFloat { test, p, a } => self.test_float(test, p, a),
        }
    }
}
