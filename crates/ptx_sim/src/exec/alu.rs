//! Runs stretches of arithmetic over all lanes at once.
//!
//! Every operation computes all 32 lanes, active or not, and writes back under the mask: lanes are
//! independent, nothing traps, and the loops vectorize.

use crate::exec::registers::{LANES, Registers};
use crate::numeric::{approx, convert, float, half, integer};
use crate::op::{
    Alu, Bin32, Bin64, BoolOp, Cmp, Column, CompareTy, D, FloatTest, Instr, NONE, Narrow, Op, P, R,
    Shift, Tri32, Tri64, Un32, Un64, Widen,
};
use crate::ty::Space;

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
    fn test32(&self, a: R, b: R, op: impl Fn(u32, u32) -> bool) -> u32 {
        let (x, y) = (
            &self.registers.r32[a as usize],
            &self.registers.r32[b as usize],
        );
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= u32::from(op(x[lane], y[lane])) << lane;
        }
        bits
    }

    #[inline(always)]
    fn test64(&self, a: D, b: D, op: impl Fn(u64, u64) -> bool) -> u32 {
        let (x, y) = (
            &self.registers.r64[a as usize],
            &self.registers.r64[b as usize],
        );
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= u32::from(op(x[lane], y[lane])) << lane;
        }
        bits
    }

    #[inline(always)]
    fn execute(&mut self, alu: &Alu) {
        match *alu {
            Alu::Un32(op, d, a) => self.execute_un32(op, d, a),
            Alu::Bin32(op, d, a, b) => self.execute_bin32(op, d, a, b),
            Alu::Tri32(op, d, a, b, c) => self.execute_tri32(op, d, a, b, c),
            Alu::Lop3 { lut, d, a, b, c } => self.tri32(d, a, b, c, |x, y, z| {
                let mut out = 0;
                for row in 0..8u8 {
                    let all = if lut >> row & 1 == 1 { u32::MAX } else { 0 };
                    let x = if row & 4 != 0 { x } else { !x };
                    let y = if row & 2 != 0 { y } else { !y };
                    let z = if row & 1 != 0 { z } else { !z };
                    out |= all & x & y & z;
                }
                out
            }),
            Alu::Float(op, mode, d, [a, b, c]) => {
                self.tri32(d, a, b, c, |x, y, z| float::apply(op, mode, [x, y, z]));
            }
            Alu::Approx(op, ftz, d, a) => self.active_un32(d, a, |x| approx::apply(op, ftz, x)),
            Alu::Half(op, mode, d, [a, b, c]) => {
                self.tri32(d, a, b, c, |x, y, z| half::apply(op, mode, x, y, z));
            }
            Alu::Un64(op, d, a) => self.execute_un64(op, d, a),
            Alu::Bin64(op, d, a, b) => self.execute_bin64(op, d, a, b),
            Alu::Tri64(op, d, a, b, c) => match op {
                Tri64::MadLo => self.tri64(d, a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
                Tri64::MadHiU => {
                    self.tri64(d, a, b, c, |x, y, z| high_unsigned(x, y).wrapping_add(z));
                }
                Tri64::MadHiS => {
                    self.tri64(d, a, b, c, |x, y, z| high_signed(x, y).wrapping_add(z));
                }
                Tri64::FmaF64 => {
                    self.tri64(d, a, b, c, |x, y, z| g(x).mul_add(g(y), g(z)).to_bits())
                }
            },
            Alu::Shift64(op, d, a, b) => match op {
                Shift::Left => self.shift64(d, a, b, |x, y| if y < 64 { x << y } else { 0 }),
                Shift::RightU => self.shift64(d, a, b, |x, y| if y < 64 { x >> y } else { 0 }),
                Shift::RightS => self.shift64(d, a, b, |x, y| {
                    (x.cast_signed() >> y.min(63)).cast_unsigned()
                }),
            },
            Alu::Extract64 {
                signed,
                d,
                a,
                place,
            } => {
                self.shift64(d, a, place, |x, place| integer::extract64(signed, x, place));
            }
            Alu::Insert64 { d, a, b, place } => self.insert64(d, a, b, place),
            Alu::Widen(op, d, a) => match op {
                Widen::Zero => self.widen(d, a, u64::from),
                Widen::Sign => self.widen(d, a, |x| i64::from(s(x)).cast_unsigned()),
                Widen::Sign16 => self.widen(d, a, |x| i64::from(s16(x)).cast_unsigned()),
                Widen::Sign8 => {
                    self.widen(d, a, |x| i64::from((x as u8).cast_signed()).cast_unsigned());
                }
            },
            Alu::Narrow(op, d, a) => match op {
                Narrow::Low => self.narrow(d, a, |x| x as u32),
                Narrow::High => self.narrow(d, a, |x| (x >> 32) as u32),
                Narrow::Low16 => self.narrow(d, a, |x| x as u32 & 0xffff),
                Narrow::Low8 => self.narrow(d, a, |x| x as u32 & 0xff),
                Narrow::Popc => self.narrow(d, a, u64::count_ones),
                Narrow::Clz => self.narrow(d, a, u64::leading_zeros),
                Narrow::FindU => self.narrow(d, a, integer::find),
                Narrow::FindS => self.narrow(d, a, |x| {
                    integer::find(x ^ (x.cast_signed() >> 63).cast_unsigned())
                }),
            },
            Alu::MulWide {
                signed: false,
                d,
                a,
                b,
            } => {
                self.widen2(d, a, b, |x, y| u64::from(x) * u64::from(y));
            }
            Alu::MulWide {
                signed: true,
                d,
                a,
                b,
            } => {
                self.widen2(d, a, b, |x, y| {
                    (i64::from(s(x)) * i64::from(s(y))).cast_unsigned()
                });
            }
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
                let (truth, mut defined) = self.compare(ty, cmp, a, b);
                let (mut first, mut second) = (truth, !truth);
                if let Some(combine) = combine {
                    let c = self.registers.pred[combine.c as usize];
                    let c = if combine.negated { !c } else { c };
                    first = boolean(combine.op, first, c);
                    second = boolean(combine.op, second, c);
                    defined &= self.registers.defined_pred[combine.c as usize];
                }
                self.registers.write_pred(p, self.mask, first, defined);
                if q != NONE {
                    self.registers.write_pred(q, self.mask, second, defined);
                }
            }
            Alu::Select32 { d, a, b, p } => self.select32(d, a, b, p),
            Alu::Select64 { d, a, b, p } => self.select64(d, a, b, p),
            Alu::Pred(op, d, a, b) => {
                let value = boolean(
                    op,
                    self.registers.pred[a as usize],
                    self.registers.pred[b as usize],
                );
                let known = &self.registers.defined_pred;
                let defined = known[a as usize] & known[b as usize];
                self.registers.write_pred(d, self.mask, value, defined);
            }
            Alu::NotPred { d, a } => {
                let value = !self.registers.pred[a as usize];
                let defined = self.registers.defined_pred[a as usize];
                self.registers.write_pred(d, self.mask, value, defined);
            }
            Alu::SetPred { d, value } => {
                let value = if value { u32::MAX } else { 0 };
                self.registers.write_pred(d, self.mask, value, u32::MAX);
            }
            Alu::IsSpace { space, p, a } => {
                let value = self.test64(a, a, |x, _| {
                    let (found, _) = crate::memory::space_of(x);
                    found == space || space == Space::Const && found == Space::Global
                });
                let defined = self.registers.defined64[a as usize];
                self.registers.write_pred(p, self.mask, value, defined);
            }
            Alu::TestFloat { test, p, a } => {
                let value = self.test32(a, a, |x, _| match test {
                    FloatTest::Finite => f(x).is_finite(),
                    FloatTest::Infinite => f(x).is_infinite(),
                    FloatTest::Number => !f(x).is_nan(),
                    FloatTest::NotANumber => f(x).is_nan(),
                    FloatTest::Normal => f(x).is_normal(),
                    FloatTest::Subnormal => f(x).is_subnormal(),
                });
                let defined = self.registers.defined32[a as usize];
                self.registers.write_pred(p, self.mask, value, defined);
            }
        }
    }

    #[inline(always)]
    fn execute_un32(&mut self, op: Un32, d: R, a: R) {
        match op {
            Un32::Mov => self.un32(d, a, |x| x),
            Un32::Not => self.un32(d, a, |x| !x),
            Un32::Not16 => self.un32(d, a, |x| !x & 0xffff),
            Un32::Cnot => self.un32(d, a, |x| u32::from(x == 0)),
            Un32::Neg => self.un32(d, a, u32::wrapping_neg),
            Un32::Neg16 => self.un32(d, a, |x| x.wrapping_neg() & 0xffff),
            Un32::Abs => self.un32(d, a, |x| s(x).unsigned_abs()),
            Un32::Abs16 => self.un32(d, a, |x| s16(x).unsigned_abs()),
            Un32::Popc => self.un32(d, a, u32::count_ones),
            Un32::Clz => self.un32(d, a, u32::leading_zeros),
            Un32::Brev => self.un32(d, a, u32::reverse_bits),
            Un32::FindU => self.un32(d, a, |x| integer::find(u64::from(x))),
            Un32::FindS => self.un32(d, a, |x| integer::find(u64::from(x ^ sign_fill(x)))),
            Un32::ShiftFindU => self.un32(d, a, |x| shift_amount(integer::find(u64::from(x)))),
            Un32::ShiftFindS => {
                self.un32(d, a, |x| {
                    shift_amount(integer::find(u64::from(x ^ sign_fill(x))))
                });
            }
            Un32::Low8 => self.un32(d, a, |x| x & 0xff),
            Un32::Low16 => self.un32(d, a, |x| x & 0xffff),
            Un32::High16 => self.un32(d, a, |x| x >> 16),
            Un32::Byte1 => self.un32(d, a, |x| x >> 8 & 0xff),
            Un32::Byte2 => self.un32(d, a, |x| x >> 16 & 0xff),
            Un32::Byte3 => self.un32(d, a, |x| x >> 24),
            Un32::Sext8 => self.un32(d, a, |x| i32::from((x as u8).cast_signed()).cast_unsigned()),
            Un32::Sext16 => self.un32(d, a, |x| s16(x).cast_unsigned()),
            Un32::Sext8To16 => self.un32(d, a, |x| low16(i32::from((x as u8).cast_signed()))),
            Un32::NegF32 => self.un32(d, a, |x| x ^ 0x8000_0000),
            Un32::AbsF32 => self.un32(d, a, |x| x & 0x7fff_ffff),
            Un32::NegHalf => self.un32(d, a, |x| x ^ 0x8000),
            Un32::AbsHalf => self.un32(d, a, |x| x & 0x7fff),
            Un32::NegHalf2 => self.un32(d, a, |x| x ^ 0x8000_8000),
            Un32::AbsHalf2 => self.un32(d, a, |x| x & 0x7fff_7fff),
            Un32::SqrtF32 => self.un32(d, a, |x| float::canonical(f(x).sqrt())),
            Un32::RcpF32 => self.un32(d, a, |x| float::canonical(1.0 / f(x))),
            Un32::F32FromU32 => self.un32(d, a, |x| (x as f32).to_bits()),
            Un32::F32FromS32 => self.un32(d, a, |x| (s(x) as f32).to_bits()),
            Un32::F32FromF16 => self.un32(d, a, half::f16_to_f32),
            Un32::F32FromBf16 => self.un32(d, a, half::bf16_to_f32),
            Un32::F16FromF32 => self.un32(d, a, half::f32_to_f16),
            Un32::Bf16FromF32 => self.un32(d, a, half::f32_to_bf16),
            Un32::S32FromF32Rz => self.un32(d, a, |x| (f(x) as i32).cast_unsigned()),
            Un32::U32FromF32Rz => self.un32(d, a, |x| f(x) as u32),
        }
    }

    #[inline(always)]
    fn execute_bin32(&mut self, op: Bin32, d: R, a: R, b: R) {
        match op {
            Bin32::Add => self.bin32(d, a, b, u32::wrapping_add),
            Bin32::Sub => self.bin32(d, a, b, u32::wrapping_sub),
            Bin32::MulLo => self.bin32(d, a, b, u32::wrapping_mul),
            Bin32::MulHiU => {
                self.bin32(d, a, b, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32)
            }
            Bin32::MulHiS => {
                self.bin32(d, a, b, |x, y| {
                    ((i64::from(s(x)) * i64::from(s(y))) >> 32) as u32
                });
            }
            Bin32::DivU => self.bin32(d, a, b, |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
            Bin32::DivS => self.bin32(d, a, b, |x, y| {
                if y == 0 {
                    u32::MAX
                } else {
                    s(x).wrapping_div(s(y)).cast_unsigned()
                }
            }),
            Bin32::RemU => self.bin32(d, a, b, |x, y| x.checked_rem(y).unwrap_or(x)),
            Bin32::RemS => self.bin32(d, a, b, |x, y| {
                if y == 0 {
                    x
                } else {
                    s(x).wrapping_rem(s(y)).cast_unsigned()
                }
            }),
            Bin32::MinU | Bin32::MinU16 => self.bin32(d, a, b, u32::min),
            Bin32::MaxU | Bin32::MaxU16 => self.bin32(d, a, b, u32::max),
            Bin32::MinS => self.bin32(d, a, b, |x, y| s(x).min(s(y)).cast_unsigned()),
            Bin32::MaxS => self.bin32(d, a, b, |x, y| s(x).max(s(y)).cast_unsigned()),
            Bin32::And => self.bin32(d, a, b, |x, y| x & y),
            Bin32::Or => self.bin32(d, a, b, |x, y| x | y),
            Bin32::Xor => self.bin32(d, a, b, |x, y| x ^ y),
            Bin32::Shl => self.bin32(d, a, b, |x, y| if y < 32 { x << y } else { 0 }),
            Bin32::ShrU => self.bin32(d, a, b, |x, y| if y < 32 { x >> y } else { 0 }),
            Bin32::ShrS => self.bin32(d, a, b, |x, y| (s(x) >> y.min(31)).cast_unsigned()),
            Bin32::AddSatS => self.bin32(d, a, b, |x, y| s(x).saturating_add(s(y)).cast_unsigned()),
            Bin32::SubSatS => self.bin32(d, a, b, |x, y| s(x).saturating_sub(s(y)).cast_unsigned()),
            Bin32::Mul24U => {
                self.bin32(d, a, b, |x, y| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff));
            }
            Bin32::Mul24S => {
                let low24 = |x: u32| (s(x) << 8) >> 8;
                self.bin32(d, a, b, |x, y| {
                    low24(x).wrapping_mul(low24(y)).cast_unsigned()
                });
            }
            Bin32::Add16 => self.bin32(d, a, b, |x, y| x.wrapping_add(y) & 0xffff),
            Bin32::Sub16 => self.bin32(d, a, b, |x, y| x.wrapping_sub(y) & 0xffff),
            Bin32::MulLo16 => self.bin32(d, a, b, |x, y| x.wrapping_mul(y) & 0xffff),
            Bin32::MulHiU16 => self.bin32(d, a, b, |x, y| x.wrapping_mul(y) >> 16),
            Bin32::MulHiS16 => self.bin32(d, a, b, |x, y| low16((s16(x) * s16(y)) >> 16)),
            Bin32::MulWideU16 => self.bin32(d, a, b, u32::wrapping_mul),
            Bin32::MulWideS16 => self.bin32(d, a, b, |x, y| (s16(x) * s16(y)).cast_unsigned()),
            Bin32::DivU16 => self.bin32(d, a, b, |x, y| x.checked_div(y).unwrap_or(0xffff)),
            Bin32::DivS16 => self.bin32(d, a, b, |x, y| {
                if y == 0 {
                    0xffff
                } else {
                    low16(s16(x) / s16(y))
                }
            }),
            Bin32::RemU16 => self.bin32(d, a, b, |x, y| x.checked_rem(y).unwrap_or(x)),
            Bin32::RemS16 => self.bin32(
                d,
                a,
                b,
                |x, y| {
                    if y == 0 { x } else { low16(s16(x) % s16(y)) }
                },
            ),
            Bin32::MinS16 => self.bin32(d, a, b, |x, y| low16(s16(x).min(s16(y)))),
            Bin32::MaxS16 => self.bin32(d, a, b, |x, y| low16(s16(x).max(s16(y)))),
            Bin32::Shl16 => self.bin32(d, a, b, |x, y| if y < 16 { x << y & 0xffff } else { 0 }),
            Bin32::ShrU16 => self.bin32(d, a, b, |x, y| if y < 16 { x >> y } else { 0 }),
            Bin32::ShrS16 => self.bin32(d, a, b, |x, y| low16(s16(x) >> y.min(15))),
            Bin32::Pack16 => self.bin32(d, a, b, |x, y| x & 0xffff | y << 16),
            Bin32::Pack8 => self.bin32(d, a, b, |x, y| x & 0xff | (y & 0xff) << 8),
            Bin32::AddF32 => self.bin32(d, a, b, |x, y| float::canonical(f(x) + f(y))),
            Bin32::SubF32 => self.bin32(d, a, b, |x, y| float::canonical(f(x) - f(y))),
            Bin32::MulF32 => self.bin32(d, a, b, |x, y| float::canonical(f(x) * f(y))),
            Bin32::DivF32 => self.bin32(d, a, b, |x, y| float::canonical(f(x) / f(y))),
            Bin32::MinF32 => self.bin32(d, a, b, float::min32),
            Bin32::MaxF32 => self.bin32(d, a, b, float::max32),
            Bin32::CopySign => {
                self.bin32(d, a, b, |x, y| y & 0x7fff_ffff | x & 0x8000_0000);
            }
            Bin32::BitMaskClamp => self.bin32(d, a, b, integer::bit_mask),
            Bin32::BitMaskWrap => {
                self.bin32(d, a, b, |x, y| integer::bit_mask(x & 31, y & 31));
            }
        }
    }

    #[inline(always)]
    fn execute_tri32(&mut self, op: Tri32, d: R, a: R, b: R, c: R) {
        match op {
            Tri32::MadLo => self.tri32(d, a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
            Tri32::MadHiU => self.tri32(d, a, b, c, |x, y, z| {
                (((u64::from(x) * u64::from(y)) >> 32) as u32).wrapping_add(z)
            }),
            Tri32::MadHiS => self.tri32(d, a, b, c, |x, y, z| {
                (((i64::from(s(x)) * i64::from(s(y))) >> 32) as u32).wrapping_add(z)
            }),
            Tri32::MadLo16 => {
                self.tri32(d, a, b, c, |x, y, z| {
                    x.wrapping_mul(y).wrapping_add(z) & 0xffff
                });
            }
            Tri32::MadWideU16 => {
                self.tri32(d, a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z));
            }
            Tri32::MadWideS16 => self.tri32(d, a, b, c, |x, y, z| {
                (s16(x) * s16(y)).cast_unsigned().wrapping_add(z)
            }),
            Tri32::SadU => self.tri32(d, a, b, c, |x, y, z| x.abs_diff(y).wrapping_add(z)),
            Tri32::SadS => self.tri32(d, a, b, c, |x, y, z| s(x).abs_diff(s(y)).wrapping_add(z)),
            Tri32::FmaF32 => {
                self.tri32(d, a, b, c, |x, y, z| {
                    float::canonical(f(x).mul_add(f(y), f(z)))
                });
            }
            Tri32::Dp4a(a_signed, b_signed) => {
                self.tri32(d, a, b, c, |x, y, z| {
                    integer::dot4(a_signed, b_signed, x, y, z)
                });
            }
            Tri32::Dp2aLow(a_signed, b_signed) => {
                self.tri32(d, a, b, c, |x, y, z| {
                    integer::dot2(a_signed, b_signed, 0, x, y, z)
                });
            }
            Tri32::Dp2aHigh(a_signed, b_signed) => {
                self.tri32(d, a, b, c, |x, y, z| {
                    integer::dot2(a_signed, b_signed, 2, x, y, z)
                });
            }
            Tri32::Permute(mode) => {
                self.tri32(d, a, b, c, |x, y, z| integer::permute(mode, x, y, z));
            }
            Tri32::FunnelLeftWrap => {
                self.tri32(d, a, b, c, |x, y, z| integer::funnel_left(x, y, z & 31));
            }
            Tri32::FunnelLeftClamp => {
                self.tri32(d, a, b, c, |x, y, z| integer::funnel_left(x, y, z.min(32)));
            }
            Tri32::FunnelRightWrap => {
                self.tri32(d, a, b, c, |x, y, z| integer::funnel_right(x, y, z & 31));
            }
            Tri32::FunnelRightClamp => {
                self.tri32(d, a, b, c, |x, y, z| integer::funnel_right(x, y, z.min(32)));
            }
            Tri32::ExtractU => self.tri32(d, a, b, c, integer::extract_unsigned),
            Tri32::ExtractS => self.tri32(d, a, b, c, integer::extract_signed),
            Tri32::Insert => self.tri32(d, a, b, c, integer::insert),
            Tri32::PackSatS8 => self.tri32(d, a, b, c, |x, y, z| {
                integer::pack_saturated(8, -128, 127, x, y, z)
            }),
            Tri32::PackSatU8 => {
                self.tri32(d, a, b, c, |x, y, z| {
                    integer::pack_saturated(8, 0, 255, x, y, z)
                });
            }
            Tri32::PackSatS16 => self.tri32(d, a, b, c, |x, y, z| {
                integer::pack_saturated(16, -32768, 32767, x, y, z)
            }),
            Tri32::PackSatU16 => {
                self.tri32(d, a, b, c, |x, y, z| {
                    integer::pack_saturated(16, 0, 65535, x, y, z)
                });
            }
        }
    }

    #[inline(always)]
    fn execute_un64(&mut self, op: Un64, d: D, a: D) {
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
    fn execute_bin64(&mut self, op: Bin64, d: D, a: D, b: D) {
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
    fn mad_wide(&mut self, signed: bool, d: D, a: R, b: R, c: D) {
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

    fn insert64(&mut self, d: D, a: D, b: D, place: R) {
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

    /// Transcendental functions are too slow to run on lanes that are off.
    #[inline(always)]
    fn active_un32(&mut self, d: R, a: R, op: impl Fn(u32) -> u32) {
        let mut out = [0; LANES];
        let x = &self.registers.r32[a as usize];
        for lane in 0..LANES {
            if self.mask >> lane & 1 == 1 {
                out[lane] = op(x[lane]);
            }
        }
        let defined = self.registers.defined32[a as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    fn convert(&mut self, conversion: &crate::op::Conversion, d: Column, a: Column) {
        let mut defined = 0;
        for lane in 0..LANES {
            if self.mask >> lane & 1 == 1 {
                let value = convert::apply(conversion, self.registers.get(a, lane));
                self.registers.set(d, lane, value);
                defined |= u32::from(self.registers.is_defined(a, 1 << lane)) << lane;
            }
        }
        self.registers.define(d, self.mask, defined);
    }

    #[inline(always)]
    fn convert_pair(&mut self, bf16: bool, relu: bool, toward_zero: bool, d: R, a: R, b: R) {
        if !relu && !toward_zero && !bf16 {
            return self.bin32(d, a, b, |x, y| {
                half::f32_to_f16(x) << 16 | half::f32_to_f16(y)
            });
        }
        if !relu && !toward_zero {
            return self.bin32(d, a, b, |x, y| {
                half::f32_to_bf16(x) << 16 | half::f32_to_bf16(y)
            });
        }
        let conversion = crate::op::Conversion {
            to: if bf16 {
                crate::ty::Ty::Bf16
            } else {
                crate::ty::Ty::F16
            },
            from: crate::ty::Ty::F32,
            round: if toward_zero {
                crate::op::Round::Zero
            } else {
                crate::op::Round::Nearest
            },
            integral: false,
            ftz: false,
            sat: false,
            relu,
        };
        let one = |x: u32| convert::apply(&conversion, u64::from(x)) as u32;
        self.bin32(d, a, b, |x, y| one(x) << 16 | one(y));
    }

    fn carry(&mut self, modes: [bool; 3], cc: P, d: Column, a: Column, b: Column) {
        let [subtract, carry_in, carry_out] = modes;
        let flag = self.registers.pred[cc as usize];
        let (mut carries, mut defined) = (0, 0);
        let wide = matches!(d, Column::R64(_));
        for lane in 0..LANES {
            let (x, y) = (self.registers.get(a, lane), self.registers.get(b, lane));
            let carry = u128::from(carry_in && flag >> lane & 1 == 1);
            let (x, y) = (u128::from(x), u128::from(y));
            let sum = if subtract {
                x.wrapping_sub(y).wrapping_sub(carry)
            } else {
                x + y + carry
            };
            let out = sum >> if wide { 64 } else { 32 } & 1;
            carries |= (out as u32) << lane;
            let known = self.registers.is_defined(a, 1 << lane)
                && self.registers.is_defined(b, 1 << lane)
                && (!carry_in || self.registers.defined_pred[cc as usize] >> lane & 1 == 1);
            defined |= u32::from(known) << lane;
            if self.mask >> lane & 1 == 1 {
                self.registers.set(d, lane, sum as u64);
            }
        }
        self.registers.define(d, self.mask, defined);
        if carry_out {
            self.registers.write_pred(cc, self.mask, carries, defined);
        }
    }

    #[inline(always)]
    fn select32(&mut self, d: R, a: R, b: R, p: P) {
        let choice = self.registers.pred[p as usize];
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r32[a as usize],
            &self.registers.r32[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = if choice >> lane & 1 == 1 {
                x[lane]
            } else {
                y[lane]
            };
        }
        let known = &self.registers.defined32;
        let defined = choice & known[a as usize] | !choice & known[b as usize];
        let defined = defined & self.registers.defined_pred[p as usize];
        self.registers.write32(d, self.mask, &out);
        self.registers.define32(d, self.mask, defined);
    }

    #[inline(always)]
    fn select64(&mut self, d: D, a: D, b: D, p: P) {
        let choice = self.registers.pred[p as usize];
        let mut out = [0; LANES];
        let (x, y) = (
            &self.registers.r64[a as usize],
            &self.registers.r64[b as usize],
        );
        for lane in 0..LANES {
            out[lane] = if choice >> lane & 1 == 1 {
                x[lane]
            } else {
                y[lane]
            };
        }
        let known = &self.registers.defined64;
        let defined = choice & known[a as usize] | !choice & known[b as usize];
        let defined = defined & self.registers.defined_pred[p as usize];
        self.registers.write64(d, self.mask, &out);
        self.registers.define64(d, self.mask, defined);
    }

    /// Truth and definedness of a comparison, per lane.
    #[inline(always)]
    fn compare(&self, ty: CompareTy, cmp: Cmp, a: u32, b: u32) -> (u32, u32) {
        let registers = &*self.registers;
        let wide = matches!(ty, CompareTy::U64 | CompareTy::S64 | CompareTy::F64);
        let defined = if wide {
            registers.defined64[a as usize] & registers.defined64[b as usize]
        } else {
            registers.defined32[a as usize] & registers.defined32[b as usize]
        };
        let signed = |x: u64| x.cast_signed();
        let half = |bf16| move |x: u32| half::to_f64(x, bf16);
        let truth = match ty {
            CompareTy::U32 => match cmp {
                Cmp::Eq => self.test32(a, b, |x, y| x == y),
                Cmp::Ne => self.test32(a, b, |x, y| x != y),
                Cmp::Lt => self.test32(a, b, |x, y| x < y),
                Cmp::Le => self.test32(a, b, |x, y| x <= y),
                Cmp::Gt => self.test32(a, b, |x, y| x > y),
                _ => self.test32(a, b, |x, y| x >= y),
            },
            CompareTy::S32 => match cmp {
                Cmp::Eq => self.test32(a, b, |x, y| x == y),
                Cmp::Ne => self.test32(a, b, |x, y| x != y),
                Cmp::Lt => self.test32(a, b, |x, y| s(x) < s(y)),
                Cmp::Le => self.test32(a, b, |x, y| s(x) <= s(y)),
                Cmp::Gt => self.test32(a, b, |x, y| s(x) > s(y)),
                _ => self.test32(a, b, |x, y| s(x) >= s(y)),
            },
            CompareTy::S16 => self.test32(a, b, |x, y| integer_truth(cmp, s16(x), s16(y))),
            CompareTy::U64 => self.test64(a, b, |x, y| integer_truth(cmp, x, y)),
            CompareTy::S64 => self.test64(a, b, |x, y| integer_truth(cmp, signed(x), signed(y))),
            CompareTy::F32 => match cmp {
                Cmp::Lt => self.test32(a, b, |x, y| f(x) < f(y)),
                Cmp::Gt => self.test32(a, b, |x, y| f(x) > f(y)),
                Cmp::Nan => self.test32(a, b, |x, y| f(x).is_nan() || f(y).is_nan()),
                _ => self.test32(a, b, |x, y| float_truth(cmp, f(x), f(y))),
            },
            CompareTy::F32Ftz => self.test32(a, b, |x, y| {
                float_truth(cmp, f(float::flush(x)), f(float::flush(y)))
            }),
            CompareTy::F16 => self.test32(a, b, |x, y| {
                float_truth(cmp, half(false)(x), half(false)(y))
            }),
            CompareTy::Bf16 => {
                self.test32(a, b, |x, y| float_truth(cmp, half(true)(x), half(true)(y)))
            }
            CompareTy::F64 => self.test64(a, b, |x, y| float_truth(cmp, g(x), g(y))),
        };
        (truth, defined)
    }
}

fn boolean(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

fn sign_fill(x: u32) -> u32 {
    (s(x) >> 31).cast_unsigned()
}

fn shift_amount(position: u32) -> u32 {
    if position == u32::MAX {
        u32::MAX
    } else {
        31 - position
    }
}

fn high_unsigned(x: u64, y: u64) -> u64 {
    ((u128::from(x) * u128::from(y)) >> 64) as u64
}

fn high_signed(x: u64, y: u64) -> u64 {
    ((i128::from(x.cast_signed()) * i128::from(y.cast_signed())) >> 64) as u64
}

#[inline(always)]
fn integer_truth<T: Ord>(cmp: Cmp, x: T, y: T) -> bool {
    match cmp {
        Cmp::Eq | Cmp::Equ => x == y,
        Cmp::Ne | Cmp::Neu => x != y,
        Cmp::Lt | Cmp::Ltu => x < y,
        Cmp::Le | Cmp::Leu => x <= y,
        Cmp::Gt | Cmp::Gtu => x > y,
        Cmp::Ge | Cmp::Geu => x >= y,
        Cmp::Num => true,
        Cmp::Nan => false,
    }
}

/// The ordered comparisons are false on NaN, the unordered ones true.
#[inline(always)]
fn float_truth<T: PartialOrd>(cmp: Cmp, x: T, y: T) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = x.partial_cmp(&y);
    match cmp {
        Cmp::Eq => order == Some(Equal),
        Cmp::Ne => matches!(order, Some(Less | Greater)),
        Cmp::Lt => order == Some(Less),
        Cmp::Le => matches!(order, Some(Less | Equal)),
        Cmp::Gt => order == Some(Greater),
        Cmp::Ge => matches!(order, Some(Greater | Equal)),
        Cmp::Equ => matches!(order, None | Some(Equal)),
        Cmp::Neu => order != Some(Equal),
        Cmp::Ltu => matches!(order, None | Some(Less)),
        Cmp::Leu => order != Some(Greater),
        Cmp::Gtu => matches!(order, None | Some(Greater)),
        Cmp::Geu => order != Some(Less),
        Cmp::Num => order.is_some(),
        Cmp::Nan => order.is_none(),
    }
}
