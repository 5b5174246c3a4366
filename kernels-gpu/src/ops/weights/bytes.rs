//! Bytes of blocks in shared memory, at the odd places where the block sizes put them.

use cuda_std::shared::Shared;

use crate::prim::half::F16;
use crate::prim::integer::funnel_shift_right;

/// A place in shared memory. All accesses are unsafe for the reason that [`Shared::load`] states.
#[derive(Clone, Copy)]
pub struct Bytes(Shared<u32>);

impl Bytes {
    /// The place.
    #[inline(always)]
    pub fn new(place: Shared<u32>) -> Self {
        Self(place)
    }

    /// The place `bytes` on.
    #[allow(clippy::should_implement_trait)] // as pointers' `add`
    #[inline(always)]
    pub fn add(self, bytes: u32) -> Self {
        Self(self.0.byte_add(bytes))
    }

    /// Whether 16-byte loads are possible.
    #[inline(always)]
    pub fn is_aligned(self) -> bool {
        self.0.address().is_multiple_of(16)
    }

    /// A byte.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn u8(self) -> u32 {
        // SAFETY: the caller's.
        unsafe { self.0.cast::<i8>().load() as u32 & 0xff }
    }

    /// Two bytes at an even place.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn u16(self) -> u32 {
        // SAFETY: the caller's.
        unsafe { self.0.cast::<u16>().load() as u32 }
    }

    /// A half-precision number at an even place.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn f16(self) -> f32 {
        // SAFETY: the caller's.
        F16(unsafe { self.0.cast::<u16>().load() }).to_f32()
    }

    /// A word at a multiple of 4.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn word(self) -> u32 {
        // SAFETY: the caller's.
        unsafe { self.0.load() }
    }

    /// `N` words at a multiple of 4.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn words<const N: usize>(self) -> [u32; N] {
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            // SAFETY: the caller's.
            words[i] = unsafe { self.0.add(i as u32).load() };
            i += 1;
        }
        words
    }

    /// `N` words, a multiple of four of them, at a multiple of 16.
    ///
    /// # Safety
    /// See the [type](Self).
    #[inline(always)]
    pub unsafe fn words_aligned<const N: usize>(self) -> [u32; N] {
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            // SAFETY: the caller's.
            let four = unsafe { self.0.add(i as u32).cast::<[u32; 4]>().load() };
            words[i] = four[0];
            words[i + 1] = four[1];
            words[i + 2] = four[2];
            words[i + 3] = four[3];
            i += 4;
        }
        words
    }

    /// `N` words at any place, from the `N + 1` whole words around them.
    ///
    /// # Safety
    /// See the [type](Self); a word behind the last byte is readable too.
    #[inline(always)]
    pub unsafe fn words_unaligned<const N: usize>(self) -> [u32; N] {
        let address = self.0.address();
        let place = Shared::<u32>::from_address(address & !3);
        let shift = address % 4 * 8;
        let mut words = [0; N];
        // SAFETY: the caller's.
        unsafe {
            let mut low = place.load();
            let mut i = 0;
            while i < N {
                let high = place.add(i as u32 + 1).load();
                words[i] = funnel_shift_right(low, high, shift);
                low = high;
                i += 1;
            }
        }
        words
    }
}
