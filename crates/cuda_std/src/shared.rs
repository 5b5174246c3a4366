//! Memory that the threads of a block share.
//!
//! Static arrays come from [`static_shared!`](crate::static_shared) and
//! [`shared_array!`](crate::shared_array), the memory whose size the launch chooses from
//! [`dynamic`] and [`dynamic_shared_mem`]. The first of each pair gives a [`Shared`] handle: a
//! 32-bit shared address with `ld.shared` and `st.shared`. The second gives Rust-CUDA's generic
//! pointer, for which the hardware finds the address space at each access.
//!
//! The memory is uninitialized, and what one thread writes another may read only after a barrier.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;
use core::marker::PhantomData;

use crate::gpu_only;

#[cfg(target_arch = "nvptx64")]
core::arch::global_asm!(".extern .shared .align 128 .b8 cuda_std_dynamic_shared[];");

/// A place in shared memory that holds a `T`, usually the first of several.
#[repr(transparent)]
pub struct Shared<T> {
    address: u32,
    element: PhantomData<*mut T>,
}

impl<T> Clone for Shared<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

impl<T> Shared<T> {
    /// The place at a shared address (not a generic one).
    #[inline(always)]
    pub const fn from_address(address: u32) -> Self {
        Self {
            address,
            element: PhantomData,
        }
    }

    /// The shared address, as `cp.async` and `ldmatrix` take it.
    #[inline(always)]
    pub const fn address(self) -> u32 {
        self.address
    }

    /// The place `count` elements on.
    #[inline(always)]
    #[allow(clippy::should_implement_trait)]
    pub const fn add(self, count: u32) -> Self {
        Self::from_address(
            self.address
                .wrapping_add(count.wrapping_mul(size_of::<T>() as u32)),
        )
    }

    /// The place `bytes` on.
    #[inline(always)]
    pub const fn byte_add(self, bytes: u32) -> Self {
        Self::from_address(self.address.wrapping_add(bytes))
    }

    /// The same place for another type.
    #[inline(always)]
    pub const fn cast<U>(self) -> Shared<U> {
        Shared::from_address(self.address)
    }

    /// The generic pointer to this place.
    #[gpu_only]
    #[inline(always)]
    pub fn as_mut_ptr(self) -> *mut T {
        let pointer: *mut T;
        // SAFETY: address arithmetic only.
        unsafe {
            asm!(
                "{{ .reg .b64 wide; cvt.u64.u32 wide, {1}; cvta.shared.u64 {0}, wide; }}",
                out(reg64) pointer,
                in(reg32) self.address,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        pointer
    }
}

impl<T: SharedValue> Shared<T> {
    /// Reads the value (`ld.shared`).
    ///
    /// # Safety
    /// The place is inside the block's shared memory, aligned for `T` (16-byte arrays to 16), written
    /// before, and no other thread writes it without a barrier in between.
    #[inline(always)]
    pub unsafe fn load(self) -> T {
        // SAFETY: the caller's.
        unsafe { T::load_shared(self.address) }
    }

    /// Writes the value (`st.shared`).
    ///
    /// # Safety
    /// The place is inside the block's shared memory, aligned for `T` (16-byte arrays to 16), and no
    /// other thread accesses it without a barrier in between.
    #[inline(always)]
    pub unsafe fn store(self, value: T) {
        // SAFETY: the caller's.
        unsafe { T::store_shared(self.address, value) }
    }
}

/// A type that one instruction moves between shared memory and registers.
pub trait SharedValue: Copy {
    /// Reads from a shared address.
    ///
    /// # Safety
    /// As for [`Shared::load`].
    unsafe fn load_shared(address: u32) -> Self;
    /// Writes to a shared address.
    ///
    /// # Safety
    /// As for [`Shared::store`].
    unsafe fn store_shared(address: u32, value: Self);
}

macro_rules! scalar {
    ($($ty:ty, $class:ident, $suffix:literal;)*) => {$(
        impl SharedValue for $ty {
            #[gpu_only]
            #[inline(always)]
            unsafe fn load_shared(address: u32) -> Self {
                let value: Self;
                // SAFETY: the caller's.
                unsafe {
                    asm!(
                        concat!("ld.shared.", $suffix, " {0}, [{1}];"),
                        out($class) value,
                        in(reg32) address,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                value
            }

            #[gpu_only]
            #[inline(always)]
            unsafe fn store_shared(address: u32, value: Self) {
                // SAFETY: the caller's.
                unsafe {
                    asm!(
                        concat!("st.shared.", $suffix, " [{0}], {1};"),
                        in(reg32) address,
                        in($class) value,
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    )*};
}

scalar! {
    i8, reg16, "s8";
    u16, reg16, "u16";
    i16, reg16, "s16";
    u32, reg32, "u32";
    i32, reg32, "s32";
    f32, reg32, "f32";
    u64, reg64, "u64";
}

macro_rules! vector {
    ($($ty:ty, $suffix:literal, $size:literal, [$($name:ident = $index:literal),*], $list:literal;)*) => {$(
        impl SharedValue for [$ty; $size] {
            #[gpu_only]
            #[inline(always)]
            unsafe fn load_shared(address: u32) -> Self {
                $(let $name: $ty;)*
                // SAFETY: the caller's.
                unsafe {
                    asm!(
                        concat!("ld.shared.v", $size, ".", $suffix, " ", $list, ", [{address}];"),
                        $($name = out(reg32) $name,)*
                        address = in(reg32) address,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                [$($name),*]
            }

            #[gpu_only]
            #[inline(always)]
            unsafe fn store_shared(address: u32, value: Self) {
                // SAFETY: the caller's.
                unsafe {
                    asm!(
                        concat!("st.shared.v", $size, ".", $suffix, " [{address}], ", $list, ";"),
                        $($name = in(reg32) value[$index],)*
                        address = in(reg32) address,
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    )*};
}

vector! {
    u32, "u32", 2, [a = 0, b = 1], "{{{a}, {b}}}";
    u32, "u32", 4, [a = 0, b = 1, c = 2, d = 3], "{{{a}, {b}, {c}, {d}}}";
    f32, "f32", 2, [a = 0, b = 1], "{{{a}, {b}}}";
    f32, "f32", 4, [a = 0, b = 1, c = 2, d = 3], "{{{a}, {b}, {c}, {d}}}";
}

/// The dynamic shared memory of the block, aligned to 128 bytes; every call gives the same place.
#[gpu_only]
#[inline(always)]
pub fn dynamic<T>() -> Shared<T> {
    let address: u32;
    // SAFETY: it only reads the address of the variable declared above.
    unsafe {
        asm!(
            "mov.u32 {0}, cuda_std_dynamic_shared;",
            out(reg32) address,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    Shared::from_address(address)
}

/// The dynamic shared memory of the block as a generic pointer; every call gives the same one.
#[inline(always)]
pub fn dynamic_shared_mem<T>() -> *mut T {
    dynamic::<T>().as_mut_ptr()
}
