//! Comparisons, tests and selections.

use crate::exec::alu::{Lanes, f, g, s, s16};
use crate::exec::registers::LANES;
use crate::numeric::{float, half};
use crate::op::{BoolOp, Cmp, Combine, CompareTy, D, FloatTest, NONE, P, R};
use crate::ty::Space;

impl Lanes<'_> {
    /// Truth and definedness of a comparison, per lane.
    #[inline(always)]
    pub(super) fn compare(&self, ty: CompareTy, cmp: Cmp, a: u32, b: u32) -> (u32, u32) {
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

    /// Writes a comparison's truth, and its opposite where a second predicate is given, both combined with
    /// another predicate.
    #[inline(always)]
    pub(super) fn set_compared(
        &mut self,
        [p, q]: [P; 2],
        truth: u32,
        mut defined: u32,
        combine: Option<Combine>,
    ) {
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

    #[inline(always)]
    pub(super) fn combine_predicates(&mut self, op: BoolOp, d: P, a: P, b: P) {
        let value = boolean(
            op,
            self.registers.pred[a as usize],
            self.registers.pred[b as usize],
        );
        let known = &self.registers.defined_pred;
        let defined = known[a as usize] & known[b as usize];
        self.registers.write_pred(d, self.mask, value, defined);
    }

    #[inline(always)]
    pub(super) fn is_space(&mut self, space: Space, p: P, a: D) {
        let value = self.test64(a, a, |x, _| {
            let (found, _) = crate::memory::space_of(x);
            found == space || space == Space::Const && found == Space::Global
        });
        let defined = self.registers.defined64[a as usize];
        self.registers.write_pred(p, self.mask, value, defined);
    }

    #[inline(always)]
    pub(super) fn test_float(&mut self, test: FloatTest, p: P, a: R) {
        let value = self.test32(a, a, |x, _| match test {
            FloatTest::Finite => f(x).is_finite(),
            FloatTest::Infinite => f(x).is_infinite(),
            FloatTest::Number => !f(x).is_nan(),
            FloatTest::NotANumber => f(x).is_nan(),
            // PTX counts zeros among the normal numbers.
            FloatTest::Normal => f(x).is_normal() || f(x) == 0.0,
            FloatTest::Subnormal => f(x).is_subnormal(),
        });
        let defined = self.registers.defined32[a as usize];
        self.registers.write_pred(p, self.mask, value, defined);
    }

    #[inline(always)]
    pub(super) fn select32(&mut self, d: R, a: R, b: R, p: P) {
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
    pub(super) fn select64(&mut self, d: D, a: D, b: D, p: P) {
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

    #[inline(always)]
    pub(super) fn test32(&self, a: R, b: R, op: impl Fn(u32, u32) -> bool) -> u32 {
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
    pub(super) fn test64(&self, a: D, b: D, op: impl Fn(u64, u64) -> bool) -> u32 {
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
}

fn boolean(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
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
