//! Conversions, carries and the transcendental functions.

use crate::exec::alu::{Lanes, s, s16};
use crate::exec::registers::LANES;
use crate::numeric::{convert, half, integer};
use crate::op::{Column, D, Narrow, P, R, Widen};

impl Lanes<'_> {
    pub(super) fn convert(&mut self, conversion: &crate::op::Conversion, d: Column, a: Column) {
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
    pub(super) fn execute_widen(&mut self, op: Widen, d: D, a: R) {
        match op {
            Widen::Zero => self.widen(d, a, u64::from),
            Widen::Sign => self.widen(d, a, |x| i64::from(s(x)).cast_unsigned()),
            Widen::Sign16 => self.widen(d, a, |x| i64::from(s16(x)).cast_unsigned()),
            Widen::Sign8 => {
                self.widen(d, a, |x| i64::from((x as u8).cast_signed()).cast_unsigned());
            }
        }
    }

    #[inline(always)]
    pub(super) fn execute_narrow(&mut self, op: Narrow, d: R, a: D) {
        match op {
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
        }
    }

    #[inline(always)]
    pub(super) fn convert_pair(
        &mut self,
        bf16: bool,
        relu: bool,
        toward_zero: bool,
        d: R,
        a: R,
        b: R,
    ) {
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

    /// One adder for all, as in the device: a difference adds the complement, and its carry says that nothing
    /// was borrowed. So `addc` behind `sub.cc` adds one where there was no borrow.
    pub(super) fn carry(&mut self, modes: [bool; 3], cc: P, d: Column, a: Column, b: Column) {
        let [subtract, carry_in, carry_out] = modes;
        let flag = self.registers.pred[cc as usize];
        let (mut carries, mut defined) = (0, 0);
        let most = match d {
            Column::R64(_) => u64::MAX,
            _ => u64::from(u32::MAX),
        };
        for lane in 0..LANES {
            let (x, y) = (self.registers.get(a, lane), self.registers.get(b, lane));
            let y = if subtract { !y & most } else { y };
            let carry = if carry_in {
                flag >> lane & 1
            } else {
                u32::from(subtract)
            };
            let sum = u128::from(x) + u128::from(y) + u128::from(carry);
            carries |= u32::from(sum > u128::from(most)) << lane;
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

    /// Transcendental functions are too slow to run on lanes that are off.
    #[inline(always)]
    pub(super) fn active_un32(&mut self, d: R, a: R, op: impl Fn(u32) -> u32) {
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
}
