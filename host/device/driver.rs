//! The driver's entry points, filled in at run time.
//!
//! `cust` links against `libcuda`, which exists only beside a driver. So this module defines the
//! symbols itself: each is one jump through a slot, and [`load`] fills the slots from
//! `libcuda.so.1`. The binary thus starts on every machine and can say that there is no driver. A
//! slot that is not filled leads to a function that answers `CUDA_ERROR_NOT_INITIALIZED`.

use super::codes::NOT_INITIALIZED;
use super::error::{DeviceError, Result};
use libloading::Library;
use std::error::Error;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where the driver is: on the loader's path, or where WSL and GPU containers put it.
const PLACES: [&str; 3] = [
    "libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
];

/// Loads the driver on the first call.
///
/// # Errors
/// [`DeviceError::NoDriver`] when there is none; the same on every later call.
pub(super) fn load() -> Result<&'static Library> {
    static DRIVER: OnceLock<Result<Library, String>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| {
        let library = open()?;
        fill(&library);
        Ok(library)
    });
    driver.as_ref().map_err(|detail| DeviceError::NoDriver {
        detail: detail.clone(),
    })
}

fn open() -> Result<Library, String> {
    let mut failures = Vec::new();
    for place in PLACES {
        // SAFETY: libcuda's initializers may run on any thread at any time.
        match unsafe { Library::new(place) } {
            Ok(library) => return Ok(library),
            Err(error) => failures.push(loader_text(&error)),
        }
    }
    Err(failures.join("; "))
}

/// The loader's error with its reason, which `libloading` keeps in the source.
pub(super) fn loader_text(error: &libloading::Error) -> String {
    match error.source() {
        Some(reason) => reason.to_string(),
        None => error.to_string(),
    }
}

/// What an empty slot leads to. The C calling conventions in use leave the caller to remove its
/// arguments, so it can stand for a function of any arguments.
extern "C" fn not_loaded() -> u32 {
    NOT_INITIALIZED
}

/// What the empty slot of `cuGetErrorString` leads to: `cust` formats the text without looking at
/// the status.
///
/// # Safety
/// `text` is null or valid for a write.
unsafe extern "C" fn text_not_loaded(_code: u32, text: *mut *const c_char) -> u32 {
    if !text.is_null() {
        // SAFETY: not null, and the caller passes a place for the text.
        unsafe { text.write(c"the CUDA driver is not loaded".as_ptr()) };
    }
    0
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($slot:path) => {
        core::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym $slot)
    };
}

// x16 is the register that the procedure call standard leaves to such veneers.
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($slot:path) => {
        core::arch::naked_asm!(
            "adrp x16, {slot}",
            "ldr x16, [x16, :lo12:{slot}]",
            "br x16",
            slot = sym $slot
        )
    };
}

macro_rules! entry_points {
    ($($empty:ident: $($name:ident)*;)*) => {
        #[allow(non_upper_case_globals)]
        mod slots {
            use super::*;
            $($(
                pub(super) static $name: AtomicPtr<c_void> =
                    AtomicPtr::new($empty as *const () as *mut c_void);
            )*)*
        }

        $($(
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn $name() {
                jump!(slots::$name)
            }
        )*)*

        /// Fills the slots of all functions that `library` has.
        fn fill(library: &Library) {
            $($(
                // SAFETY: the symbol is a function; it is only ever jumped to.
                if let Ok(function) = unsafe {
                    library.get::<unsafe extern "C" fn()>(stringify!($name))
                } {
                    slots::$name.store(*function as *mut c_void, Ordering::Release);
                }
            )*)*
        }
    };
}

// Every driver function that `cust` 0.3.2 names, used or not: which of them reach the linker depends
// on the profile.
entry_points! {
    text_not_loaded: cuGetErrorString;
    not_loaded:
        cuArray3DCreate_v2 cuArray3DGetDescriptor_v2 cuArrayDestroy cuCtxCreate_v2 cuCtxDestroy_v2
        cuCtxGetApiVersion cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetDevice cuCtxGetFlags
        cuCtxGetLimit cuCtxGetSharedMemConfig cuCtxGetStreamPriorityRange cuCtxPopCurrent_v2
        cuCtxPushCurrent_v2 cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetLimit
        cuCtxSetSharedMemConfig cuCtxSynchronize cuDestroyExternalMemory cuDeviceGet
        cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetName cuDevicePrimaryCtxRelease_v2
        cuDevicePrimaryCtxReset_v2 cuDevicePrimaryCtxRetain cuDevicePrimaryCtxSetFlags_v2
        cuDeviceTotalMem_v2 cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventElapsedTime
        cuEventQuery cuEventRecord cuEventSynchronize cuExternalMemoryGetMappedBuffer
        cuFuncGetAttribute cuFuncSetCacheConfig cuFuncSetSharedMemConfig cuGraphAddKernelNode
        cuGraphCreate cuGraphDebugDotPrint cuGraphDestroy cuGraphGetEdges cuGraphGetNodes
        cuGraphKernelNodeGetParams cuGraphNodeGetType cuImportExternalMemory cuInit cuLaunchHostFunc
        cuLaunchKernel cuLinkAddData_v2 cuLinkComplete cuLinkCreate_v2 cuLinkDestroy cuMemAdvise
        cuMemAllocAsync cuMemAllocHost_v2 cuMemAllocManaged cuMemAlloc_v2 cuMemFreeAsync
        cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemPrefetchAsync cuMemcpy2D_v2 cuMemcpyAtoH_v2
        cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoA_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemsetD16Async cuMemsetD16_v2 cuMemsetD32Async
        cuMemsetD32_v2 cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2
        cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleUnload
        cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
        cuOccupancyMaxPotentialBlockSize cuStreamCreateWithPriority cuStreamDestroy_v2
        cuStreamGetFlags cuStreamGetPriority cuStreamSynchronize cuStreamWaitEvent
        cuSurfObjectCreate cuSurfObjectDestroy cuSurfObjectGetResourceDesc cuTexObjectCreate
        cuTexObjectDestroy cuTexObjectGetResourceDesc cuTexObjectGetResourceViewDesc;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_before_loading_is_an_error_not_a_crash() {
        // Other tests may load a driver: look at the functions that the slots begin with.
        assert_eq!(not_loaded(), NOT_INITIALIZED);
        let mut text = std::ptr::null();
        // SAFETY: `text` is a valid place.
        assert_eq!(unsafe { text_not_loaded(3, &mut text) }, 0);
        assert!(!text.is_null());
    }

    #[test]
    fn cust_reaches_the_slots() {
        let result = cust::init(cust::CudaFlags::empty());
        if load().is_err() {
            assert_eq!(result, Err(cust::error::CudaError::NotInitialized));
            let text = result.unwrap_err().to_string();
            assert!(text.contains("driver is not loaded"), "{text}");
        }
    }

    #[test]
    fn a_missing_driver_is_explained_each_time() {
        for _ in 0..2 {
            if let Err(error) = load() {
                let text = error.to_string();
                assert!(text.contains("libcuda.so.1"), "{text}");
            }
        }
    }
}
