//! Half-precision numbers: storage types and conversions in the GPU's own instructions (the `half`
//! crate's become long integer code there).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use bytemuck::{Pod, Zeroable};
use cuda_std::gpu_only;

/// An IEEE half-precision number's bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct F16(pub u16);

impl F16 {
    /// The value, exactly.
    #[gpu_only]
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let result: f32;
        // SAFETY: arithmetic on registers.
        unsafe {
            asm!(
                "cvt.f32.f16 {0}, {1};",
                out(reg32) result,
                in(reg16) self.0,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        result
    }

    /// The nearest half, ties to even.
    #[gpu_only]
    #[inline(always)]
    pub fn from_f32(value: f32) -> Self {
        let bits: u16;
        // SAFETY: arithmetic on registers.
        unsafe {
            asm!(
                "cvt.rn.f16.f32 {0}, {1};",
                out(reg16) bits,
                in(reg32) value,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(bits)
    }
}

/// Both halves of a word as f32, low one first.
#[gpu_only]
#[inline(always)]
pub fn f16x2_to_f32(pair: u32) -> [f32; 2] {
    let (low, high): (f32, f32);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {2}; cvt.f32.f16 {0}, l; cvt.f32.f16 {1}, h; }}",
            out(reg32) low,
            out(reg32) high,
            in(reg32) pair,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [low, high]
}

/// Both bfloat16 of a word as f32, low one first.
#[inline(always)]
pub fn bf16x2_to_f32(pair: u32) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xffff_0000),
    ]
}

/// Two f32 rounded to halves (ties to even) in a word.
#[gpu_only]
#[inline(always)]
pub fn f32_to_f16x2(low: f32, high: f32) -> u32 {
    let pair: u32;
    // SAFETY: arithmetic on registers. The instruction takes the high half first.
    unsafe {
        asm!(
            "cvt.rn.f16x2.f32 {0}, {1}, {2};",
            out(reg32) pair,
            in(reg32) high,
            in(reg32) low,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pair
}

/// `sum + 0 * pair` in halves: a `sum` of zeros stays so where both of the pair are finite, and nowhere else.
#[gpu_only]
#[inline(always)]
pub fn add_zero_times(sum: u32, pair: u32) -> u32 {
    let result: u32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "fma.rn.f16x2 {0}, {1}, {2}, {3};",
            out(reg32) result,
            in(reg32) pair,
            in(reg32) 0,
            in(reg32) sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    result
}

/// An element type of activations: kernels compute in f32 and keep this in memory.
pub trait Element: Copy {
    /// The nearest value of this type.
    fn from_f32(value: f32) -> Self;
    /// Four elements in one access.
    ///
    /// # Safety
    /// Four elements are readable at `ptr`, which is aligned to four elements.
    unsafe fn load4(ptr: *const Self) -> [f32; 4];
    /// Writes four elements in one access.
    ///
    /// # Safety
    /// Four elements are writable at `ptr`, which is aligned to four elements.
    unsafe fn store4(ptr: *mut Self, values: [f32; 4]);
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn load4(ptr: *const Self) -> [f32; 4] {
        // SAFETY: the caller's.
        unsafe { super::load::global_v4(ptr.cast::<u32>()) }.map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn store4(ptr: *mut Self, values: [f32; 4]) {
        // SAFETY: the caller's.
        unsafe { super::load::store_global_v4(ptr.cast::<u32>(), values.map(f32::to_bits)) };
    }
}

impl Element for F16 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        F16::from_f32(value)
    }

    #[inline(always)]
    unsafe fn load4(ptr: *const Self) -> [f32; 4] {
        // SAFETY: the caller's.
        let [low, high] = unsafe { super::load::global_v2(ptr.cast::<u32>()) };
        let ([a, b], [c, d]) = (f16x2_to_f32(low), f16x2_to_f32(high));
        [a, b, c, d]
    }

    #[inline(always)]
    unsafe fn store4(ptr: *mut Self, [a, b, c, d]: [f32; 4]) {
        let pairs = [f32_to_f16x2(a, b), f32_to_f16x2(c, d)];
        // SAFETY: the caller's.
        unsafe { super::load::store_global_v2(ptr.cast::<u32>(), pairs) };
    }
}
