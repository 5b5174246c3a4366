//! Instructions on 32 and 16 bits.

use crate::exec::alu::{Lanes, f, low16, s, s16};
use crate::numeric::{float, half, integer};
use crate::op::{Bin32, HalfFormat, HalfMode, HalfOp, R, Tri32, Un32};

const PLAIN_PAIR: HalfMode = HalfMode {
    format: HalfFormat::F16x2,
    ftz: false,
    sat: false,
    relu: false,
    nan: false,
};

impl Lanes<'_> {
    #[inline(always)]
    pub(super) fn execute_un32(&mut self, op: Un32, d: R, a: R) {
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
    pub(super) fn execute_bin32(&mut self, op: Bin32, d: R, a: R, b: R) {
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
            Bin32::DivS => self.bin32(d, a, b, div_s32),
            // By zero PTX leaves it to the machine; these are an H100's results.
            Bin32::RemU => self.bin32(d, a, b, |x, y| x.checked_rem(y).unwrap_or(u32::MAX)),
            Bin32::RemS => self.bin32(d, a, b, rem_s32),
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
                self.bin32(d, a, b, |x, y| s24(x).wrapping_mul(s24(y)).cast_unsigned())
            }
            // Bits 16 to 47 of the product.
            Bin32::Mul24HiU => self.bin32(d, a, b, |x, y| {
                ((u64::from(x & 0xff_ffff) * u64::from(y & 0xff_ffff)) >> 16) as u32
            }),
            Bin32::Mul24HiS => self.bin32(d, a, b, |x, y| {
                ((i64::from(s24(x)) * i64::from(s24(y))) >> 16) as u32
            }),
            Bin32::Add16 => self.bin32(d, a, b, |x, y| x.wrapping_add(y) & 0xffff),
            Bin32::Sub16 => self.bin32(d, a, b, |x, y| x.wrapping_sub(y) & 0xffff),
            Bin32::MulLo16 => self.bin32(d, a, b, |x, y| x.wrapping_mul(y) & 0xffff),
            Bin32::MulHiU16 => self.bin32(d, a, b, |x, y| x.wrapping_mul(y) >> 16),
            Bin32::MulHiS16 => self.bin32(d, a, b, |x, y| low16((s16(x) * s16(y)) >> 16)),
            Bin32::MulWideU16 => self.bin32(d, a, b, u32::wrapping_mul),
            Bin32::MulWideS16 => self.bin32(d, a, b, |x, y| (s16(x) * s16(y)).cast_unsigned()),
            Bin32::DivU16 => self.bin32(d, a, b, |x, y| x.checked_div(y).unwrap_or(0xffff)),
            Bin32::DivS16 => self.bin32(d, a, b, div_s16),
            Bin32::RemU16 => self.bin32(d, a, b, |x, y| x.checked_rem(y).unwrap_or(0xffff)),
            Bin32::RemS16 => self.bin32(d, a, b, rem_s16),
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

    /// Each bit of the result is the table's, at the number that the sources' bits make.
    #[inline(always)]
    pub(super) fn lop3(&mut self, lut: u8, d: R, a: R, b: R, c: R) {
        self.tri32(d, a, b, c, |x, y, z| {
            let mut out = 0;
            for row in 0..8u8 {
                let all = if lut >> row & 1 == 1 { u32::MAX } else { 0 };
                let x = if row & 4 != 0 { x } else { !x };
                let y = if row & 2 != 0 { y } else { !y };
                let z = if row & 1 != 0 { z } else { !z };
                out |= all & x & y & z;
            }
            out
        });
    }

    /// Arithmetic on halves; plain pairs, which are most, in loops of their own.
    #[inline(always)]
    pub(super) fn half(&mut self, op: HalfOp, mode: HalfMode, d: R, [a, b, c]: [R; 3]) {
        match (op, mode) {
            (HalfOp::Add, PLAIN_PAIR) => self.bin32(d, a, b, half::add_pair),
            (HalfOp::Mul, PLAIN_PAIR) => self.bin32(d, a, b, half::mul_pair),
            (HalfOp::Fma, PLAIN_PAIR) => self.tri32(d, a, b, c, half::fma_pair),
            _ => self.tri32(d, a, b, c, |x, y, z| half::apply(op, mode, x, y, z)),
        }
    }

    #[inline(always)]
    pub(super) fn execute_tri32(&mut self, op: Tri32, d: R, a: R, b: R, c: R) {
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
            Tri32::SadU16 => {
                self.tri32(d, a, b, c, |x, y, z| x.abs_diff(y).wrapping_add(z) & 0xffff)
            }
            Tri32::SadS16 => self.tri32(d, a, b, c, |x, y, z| {
                s16(x).abs_diff(s16(y)).wrapping_add(z) & 0xffff
            }),
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
}

/// Sign-extends a 24-bit value.
fn s24(bits: u32) -> i32 {
    s(bits << 8) >> 8
}

fn div_s32(x: u32, y: u32) -> u32 {
    if y == 0 {
        return u32::MAX;
    }
    s(x).wrapping_div(s(y)).cast_unsigned()
}

fn rem_s32(x: u32, y: u32) -> u32 {
    if y == 0 {
        return u32::MAX;
    }
    s(x).wrapping_rem(s(y)).cast_unsigned()
}

fn div_s16(x: u32, y: u32) -> u32 {
    if y == 0 {
        return 0xffff;
    }
    low16(s16(x) / s16(y))
}

fn rem_s16(x: u32, y: u32) -> u32 {
    if y == 0 { x } else { low16(s16(x) % s16(y)) }
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
