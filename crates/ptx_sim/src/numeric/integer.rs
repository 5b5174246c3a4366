//! Bit fields, permutations and packed dot products.

use crate::op::Permute;

/// `bfe.u32`.
#[inline(always)]
pub(crate) fn extract_unsigned(value: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 0xff, length & 0xff);
    let shifted = u64::from(value).checked_shr(position).unwrap_or(0);
    let mask = (1u64 << length.min(32)) - 1;
    (shifted & mask) as u32
}

/// `bfe.s32`: bits beyond the word repeat its sign.
#[inline(always)]
pub(crate) fn extract_signed(value: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let extended = i64::from(value.cast_signed()) >> position.min(63);
    let unused = 64 - length.min(32);
    (extended << unused >> unused) as u32
}

/// `bfi.b32`: the field's position is in the low byte, its length in the next.
#[inline(always)]
pub(crate) fn insert(field: u32, base: u32, place: u32) -> u32 {
    let (position, length) = (place & 0xff, place >> 8 & 0xff);
    if position >= 32 {
        return base;
    }
    let ones = (1u64 << length.min(32)) - 1;
    let mask = (ones << position) as u32;
    base & !mask | (u64::from(field) << position) as u32 & mask
}

/// `bfe` on 64 bits, the place as for [`insert`].
#[inline(always)]
pub(crate) fn extract64(signed: bool, value: u64, place: u32) -> u64 {
    let (position, length) = (place & 0xff, (place >> 8) & 0xff);
    if length == 0 {
        return 0;
    }
    let unused = 128 - length.min(64);
    if signed {
        let extended = i128::from(value.cast_signed()) >> position.min(127);
        (extended << unused >> unused) as u64
    } else {
        let extended = u128::from(value) >> position.min(127);
        (extended << unused >> unused) as u64
    }
}

/// `bfi.b64`.
#[inline(always)]
pub(crate) fn insert64(field: u64, base: u64, place: u32) -> u64 {
    let (position, length) = (place & 0xff, (place >> 8) & 0xff);
    if position >= 64 {
        return base;
    }
    let ones = (1u128 << length.min(64)) - 1;
    let mask = (ones << position) as u64;
    (base & !mask) | ((u128::from(field) << position) as u64 & mask)
}

/// `prmt`.
#[inline(always)]
pub(crate) fn permute(mode: Permute, a: u32, b: u32, c: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    let byte = |index: u32| (bytes >> (8 * (index & 7))) as u32 & 0xff;
    let select = c & 3;
    let pick = |at: u32| match mode {
        Permute::Index => {
            let control = c >> (4 * at) & 15;
            let value = byte(control & 7);
            if control & 8 != 0 {
                if value & 0x80 != 0 { 0xff } else { 0 }
            } else {
                value
            }
        }
        Permute::Forward4 => byte(select + at),
        Permute::Backward4 => byte(select.wrapping_sub(at)),
        Permute::Replicate8 => byte(select),
        Permute::EdgeLeft => byte(at.max(select)),
        Permute::EdgeRight => byte(at.min(select)),
        Permute::Replicate16 => byte((select & 1) * 2 + (at & 1)),
    };
    pick(0) | pick(1) << 8 | pick(2) << 16 | pick(3) << 24
}

/// One byte, extended by its sign rule.
#[inline(always)]
fn byte(word: u32, index: u32, signed: bool) -> i32 {
    let byte = (word >> (8 * index)) as u8;
    if signed {
        i32::from(byte.cast_signed())
    } else {
        i32::from(byte)
    }
}

/// `dp4a`.
#[inline(always)]
pub(crate) fn dot4(a_signed: bool, b_signed: bool, a: u32, b: u32, c: u32) -> u32 {
    let product = |at| byte(a, at, a_signed) * byte(b, at, b_signed);
    let sum = product(0) + product(1) + product(2) + product(3);
    c.wrapping_add(sum.cast_unsigned())
}

/// `dp2a`: the halves of `a` with two bytes of `b` from index `first`.
#[inline(always)]
pub(crate) fn dot2(a_signed: bool, b_signed: bool, first: u32, a: u32, b: u32, c: u32) -> u32 {
    let half = |at: u32| {
        let half = (a >> (16 * at)) as u16;
        if a_signed {
            i32::from(half.cast_signed())
        } else {
            i32::from(half)
        }
    };
    let product = |at| half(at).wrapping_mul(byte(b, first + at, b_signed));
    c.wrapping_add(product(0).wrapping_add(product(1)).cast_unsigned())
}

/// `shf.l`: the high word of `high:low << shift`.
#[inline(always)]
pub(crate) fn funnel_left(low: u32, high: u32, shift: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) << shift >> 32) as u32
}

/// `shf.r`: the low word of `high:low >> shift`.
#[inline(always)]
pub(crate) fn funnel_right(low: u32, high: u32, shift: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) >> shift) as u32
}

/// Position of the most significant one; all ones when there is none.
#[inline(always)]
pub(crate) fn find(value: u64) -> u32 {
    if value == 0 {
        u32::MAX
    } else {
        63 - value.leading_zeros()
    }
}

/// `bmsk`.
#[inline(always)]
pub(crate) fn bit_mask(position: u32, length: u32) -> u32 {
    if position >= 32 {
        return 0;
    }
    let ones = (1u64 << length.min(32)) - 1;
    (ones << position) as u32
}

/// `cvt.pack.sat`: `a` above `b`, clamped, above the low bits of `c`.
#[inline(always)]
pub(crate) fn pack_saturated(bits: u32, low: i32, high: i32, a: u32, b: u32, c: u32) -> u32 {
    let mask = (1u32 << bits) - 1;
    let clamp = |value: u32| value.cast_signed().clamp(low, high).cast_unsigned() & mask;
    let rest = if bits == 16 { 0 } else { c << 16 };
    rest | clamp(a) << bits | clamp(b)
}
