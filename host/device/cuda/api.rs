//! The driver functions that hyperion calls itself: those that `cust` lacks (capture, graphs,
//! extended launches, the compiler's log), and those whose exact status the user should see, which
//! `cust` folds into one "unknown error" when the driver is newer than it.
//!
//! Declarations follow `cuda.h` of CUDA 12; handles are opaque pointers.

use super::super::codes::{CallError, Library};
use super::super::driver;
use super::super::error::{DeviceError, Result};
use super::probe::MIN_DRIVER;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// An opaque handle of the driver or of cuBLAS.
pub(super) type Handle = *mut c_void;

/// `CUlaunchAttribute`: an id, and a 64-byte union.
#[repr(C)]
pub(super) struct LaunchAttribute {
    pub id: u32,
    pub pad: u32,
    pub value: [u32; 16],
}

const _: () = assert!(size_of::<LaunchAttribute>() == 72);

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
pub(super) const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;

/// `CUlaunchConfig`.
#[repr(C)]
pub(super) struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: Handle,
    pub attributes: *mut LaunchAttribute,
    pub attribute_count: u32,
}

/// Keys of the `extra` array that passes a kernel's parameters as one block of bytes.
pub(super) const PARAM_BUFFER_POINTER: Handle = 1 as Handle;
/// See [`PARAM_BUFFER_POINTER`].
pub(super) const PARAM_BUFFER_SIZE: Handle = 2 as Handle;
/// Ends the `extra` array.
pub(super) const PARAM_END: Handle = std::ptr::null_mut();

/// `CUjit_option` keys for the compiler's error log.
pub(super) const JIT_ERROR_LOG: u32 = 5;
/// See [`JIT_ERROR_LOG`].
pub(super) const JIT_ERROR_LOG_BYTES: u32 = 6;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: other threads' allocations do not spoil a capture.
pub(super) const CAPTURE_RELAXED: u32 = 2;

/// `CUfunction_attribute` keys.
pub(super) const FUNC_MAX_THREADS: i32 = 0;
/// See [`FUNC_MAX_THREADS`].
pub(super) const FUNC_STATIC_SHARED: i32 = 1;
/// See [`FUNC_MAX_THREADS`].
pub(super) const FUNC_MAX_DYNAMIC_SHARED: i32 = 8;
/// See [`FUNC_MAX_THREADS`].
pub(super) const FUNC_SHARED_CARVEOUT: i32 = 9;

/// `CUdevice_attribute` keys.
pub(super) const DEVICE_MAX_THREADS: i32 = 1;
/// See [`DEVICE_MAX_THREADS`].
pub(super) const DEVICE_MULTIPROCESSORS: i32 = 16;
/// See [`DEVICE_MAX_THREADS`].
pub(super) const DEVICE_L2_BYTES: i32 = 38;
/// See [`DEVICE_MAX_THREADS`].
pub(super) const DEVICE_CAPABILITY_MAJOR: i32 = 75;
/// See [`DEVICE_MAX_THREADS`].
pub(super) const DEVICE_CAPABILITY_MINOR: i32 = 76;
/// See [`DEVICE_MAX_THREADS`].
pub(super) const DEVICE_MAX_SHARED_OPTIN: i32 = 97;

macro_rules! driver_functions {
    ($(fn $name:ident($($arg:ident: $ty:ty),*);)*) => {
        /// The functions, found in the driver.
        #[allow(non_snake_case)]
        pub(super) struct Api {
            $($name: unsafe extern "C" fn($($ty),*) -> u32,)*
        }

        impl Api {
            fn resolve(library: &libloading::Library) -> Result<Api, &'static str> {
                Ok(Api {
                    $($name: {
                        // SAFETY: `cuda.h` declares the function with this signature.
                        let found = unsafe { library.get(stringify!($name)) };
                        *found.map_err(|_| stringify!($name))?
                    },)*
                })
            }

            $(
                /// The driver function of this name.
                ///
                /// # Safety
                /// As the driver's documentation says: handles and pointers are valid.
                #[allow(non_snake_case, clippy::too_many_arguments)]
                pub(super) unsafe fn $name(&self, $($arg: $ty),*) -> Result<(), CallError> {
                    // SAFETY: the caller's promise.
                    match unsafe { (self.$name)($($arg),*) } {
                        0 => Ok(()),
                        code => Err(CallError::new(Library::Driver, stringify!($name), code)),
                    }
                }
            )*
        }
    };
}

driver_functions! {
    fn cuInit(flags: u32);
    fn cuDeviceGetCount(count: *mut i32);
    fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32);
    fn cuCtxSetCurrent(context: Handle);
    fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        option_count: u32,
        options: *mut u32,
        values: *mut Handle
    );
    fn cuModuleUnload(module: Handle);
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char);
    fn cuFuncGetAttribute(value: *mut i32, attribute: i32, function: Handle);
    fn cuFuncSetAttribute(function: Handle, attribute: i32, value: i32);
    fn cuMemcpyHtoDAsync_v2(dst: u64, src: *const c_void, bytes: usize, stream: Handle);
    fn cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: u64, bytes: usize, stream: Handle);
    fn cuMemcpyDtoDAsync_v2(dst: u64, src: u64, bytes: usize, stream: Handle);
    fn cuMemsetD8Async(dst: u64, value: u8, bytes: usize, stream: Handle);
    fn cuStreamCreate(stream: *mut Handle, flags: u32);
    fn cuStreamDestroy_v2(stream: Handle);
    fn cuStreamSynchronize(stream: Handle);
    fn cuEventCreate(event: *mut Handle, flags: u32);
    fn cuEventDestroy_v2(event: Handle);
    fn cuEventRecord(event: Handle, stream: Handle);
    fn cuEventSynchronize(event: Handle);
    fn cuEventElapsedTime(ms: *mut f32, start: Handle, end: Handle);
    fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: Handle,
        params: *mut Handle,
        extra: *mut Handle
    );
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32);
    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle);
    fn cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, flags: u64);
    fn cuGraphLaunch(exec: Handle, stream: Handle);
    fn cuGraphExecDestroy(exec: Handle);
    fn cuGraphDestroy(graph: Handle);
}

/// The driver's functions; loads the driver on the first call.
///
/// # Errors
/// No driver, or one that lacks a function.
pub(super) fn api() -> Result<&'static Api> {
    static API: OnceLock<Result<Api, &'static str>> = OnceLock::new();
    let library = driver::load()?;
    let resolved = API.get_or_init(|| Api::resolve(library));
    resolved.as_ref().map_err(|name| DeviceError::OldDriver {
        found: version(library),
        needed: MIN_DRIVER,
        missing: format!(" and has no `{name}`"),
    })
}

/// The CUDA version that the driver supports; 0.0 if it cannot say.
pub(super) fn version(library: &libloading::Library) -> (u32, u32) {
    type GetVersion = unsafe extern "C" fn(*mut i32) -> u32;
    let mut version = 0;
    // SAFETY: `cuda.h` declares the function with this signature, callable before `cuInit`.
    unsafe {
        if let Ok(get) = library.get::<GetVersion>("cuDriverGetVersion") {
            get(&mut version);
        }
    }
    (version as u32 / 1000, version as u32 % 1000 / 10)
}
