//! What the host and the kernels agree on: parameter structs, tile constants, kernel names.
//!
//! Every kernel takes exactly one parameter struct, by value. rustc passes it as one `.param` byte
//! array whose fields become plain `ld.param`; the host sends the struct's bytes. An array field
//! may be indexed with constants only: a variable index copies the struct to local memory.

use core::fmt;
use core::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

mod attention;
mod elementwise;
mod experts;
mod matmul;
mod matmul_q8;
mod matvec;
mod norm;
mod sampling;
mod weights;

pub use attention::*;
pub use elementwise::*;
pub use experts::*;
pub use matmul::*;
pub use matmul_q8::*;
pub use matvec::*;
pub use norm::*;
pub use sampling::*;
pub use weights::*;

/// Tokens of a page of the KV cache.
pub const PAGE_TOKENS: u32 = 64;

/// An address in the GPU's global memory, where a `T` or several lie.
///
/// `DevicePtr<()>` is used where the element type depends on the kernel.
#[repr(transparent)]
pub struct DevicePtr<T> {
    address: u64,
    element: PhantomData<*mut T>,
}

impl<T> DevicePtr<T> {
    /// No memory: a parameter that is left out.
    pub const NULL: Self = Self::from_address(0);

    /// The place at an address that the driver (or the simulator) gave.
    #[inline(always)]
    pub const fn from_address(address: u64) -> Self {
        Self {
            address,
            element: PhantomData,
        }
    }

    /// The address.
    #[inline(always)]
    pub const fn address(self) -> u64 {
        self.address
    }

    /// Whether the parameter was left out.
    #[inline(always)]
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The same place for another element type.
    #[inline(always)]
    pub const fn cast<U>(self) -> DevicePtr<U> {
        DevicePtr::from_address(self.address)
    }

    /// The place `elements` elements further on.
    #[inline(always)]
    pub const fn offset(self, elements: usize) -> Self {
        Self::from_address(self.address + (elements * size_of::<T>()) as u64)
    }

    /// The pointer, on the device.
    #[inline(always)]
    pub const fn ptr(self) -> *const T {
        core::ptr::with_exposed_provenance(self.address as usize)
    }

    /// The pointer for writing, on the device.
    #[inline(always)]
    pub const fn mut_ptr(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.address as usize)
    }
}

impl<T> Clone for DevicePtr<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevicePtr<T> {}

impl<T> fmt::Debug for DevicePtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePtr({:#x})", self.address)
    }
}

// SAFETY: an address of no memory that the host can reach; it may move between threads.
unsafe impl<T> Send for DevicePtr<T> {}
// SAFETY: as above, and it has no interior mutability.
unsafe impl<T> Sync for DevicePtr<T> {}
// SAFETY: all-zero is `NULL`.
unsafe impl<T> Zeroable for DevicePtr<T> {}
// SAFETY: a transparent u64: no padding, and any bits are a valid value.
unsafe impl<T: 'static> Pod for DevicePtr<T> {}

/// A kernel's parameter struct, as `kernel_params!` makes it.
pub trait KernelParams: Pod {}

/// A kernel that the PTX module contains, with the struct that it takes, so that a launch with the
/// wrong parameters does not compile.
pub struct KernelDef<P> {
    /// The entry point's name in the module.
    pub name: &'static str,
    /// The most threads that a block may have.
    pub max_threads: u32,
    params: PhantomData<fn(P)>,
}

impl<P: KernelParams> KernelDef<P> {
    /// Describes an entry point; `entry_points!` calls it.
    pub const fn new(name: &'static str, max_threads: u32) -> Self {
        Self {
            name,
            max_threads,
            params: PhantomData,
        }
    }

    /// Bytes of the parameter struct.
    pub const fn param_bytes(&self) -> usize {
        size_of::<P>()
    }
}

/// Declares parameter structs: `repr(C)`, plain data on the host (which refuses padding between
/// fields, so that no uninitialized byte is sent), of the stated size.
macro_rules! kernel_params {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident [$size:literal] {
            $($(#[$field_doc:meta])* pub $field:ident: $ty:ty,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, ::bytemuck::Pod, ::bytemuck::Zeroable)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
        impl $crate::abi::KernelParams for $name {}
    )*};
}
use kernel_params;
