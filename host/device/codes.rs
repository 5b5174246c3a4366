//! Status codes of the CUDA driver, of cuBLAS and of CUPTI: name, meaning, and what to do.
//!
//! The codes are those of `cuda.h` (`CUresult`), `cublas_api.h` (`cublasStatus_t`) and `cupti_result.h`
//! (`CUptiResult`).

use std::fmt;

/// The library that a status came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// The CUDA driver, `libcuda`.
    Driver,
    /// cuBLAS.
    Cublas,
    /// CUPTI, NVIDIA's profiling interface.
    Cupti,
}

/// A status code's explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The code's value.
    pub code: u32,
    /// Its name in the header.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the user can do; may be empty.
    pub hint: &'static str,
}

/// A failed call to one of the libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The library.
    pub library: Library,
    /// The function called.
    pub call: &'static str,
    /// The status it returned.
    pub code: u32,
    /// What hyperion was doing, or nothing.
    pub doing: String,
}

impl CallError {
    /// A failed call to `call`.
    pub fn new(library: Library, call: &'static str, code: u32) -> Self {
        CallError {
            library,
            call,
            code,
            doing: String::new(),
        }
    }

    /// Adds what hyperion was doing.
    pub fn doing(mut self, what: impl Into<String>) -> Self {
        self.doing = what.into();
        self
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = explain(self.library, self.code);
        let (name, meaning, hint) = match known {
            Some(code) => (code.name, code.meaning, code.hint),
            None => (
                "an unknown code",
                "not known to this version of hyperion",
                "",
            ),
        };
        write!(
            f,
            "{} returned {name} ({}): {meaning}",
            self.call, self.code
        )?;
        if !self.doing.is_empty() {
            write!(f, "; while {}", self.doing)?;
        }
        if !hint.is_empty() {
            write!(f, ". {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}

/// The explanation of `code`, if it is known.
pub fn explain(library: Library, code: u32) -> Option<&'static Code> {
    let table = match library {
        Library::Driver => DRIVER,
        Library::Cublas => CUBLAS,
        Library::Cupti => CUPTI,
    };
    table.iter().find(|entry| entry.code == code)
}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: u32 = 2;
/// `CUDA_ERROR_NOT_INITIALIZED`: also what an entry point answers before the driver is loaded.
pub const NOT_INITIALIZED: u32 = 3;
/// `CUDA_ERROR_NO_DEVICE`.
pub const NO_DEVICE: u32 = 100;

/// Driver codes after a fault in a kernel, which take the context with them.
pub const LOST_CONTEXT: &[u32] = &[700, 710, 714, 715, 716, 717, 718, 719];

const fn code(code: u32, name: &'static str, meaning: &'static str, hint: &'static str) -> Code {
    Code {
        code,
        name,
        meaning,
        hint,
    }
}

const FIND_THE_KERNEL: &str = "The GPU context is lost: restart. `compute-sanitizer hyperion ...` names the kernel and the access";
const CHECK_HARDWARE: &str = "Look at `nvidia-smi -q` and the kernel log (`dmesg | grep -i xid`)";
const A_BUG: &str = "This is a bug in hyperion: please report it with the command line";

/// Driver codes, ascending.
#[rustfmt::skip]
pub const DRIVER: &[Code] = &[
    code(1, "CUDA_ERROR_INVALID_VALUE", "an argument is out of range", A_BUG),
    code(2, "CUDA_ERROR_OUT_OF_MEMORY", "not enough memory on the GPU", "Close other programs on the GPU, or lower the context size or the batch"),
    code(3, "CUDA_ERROR_NOT_INITIALIZED", "the driver is not loaded or not initialized", "Check that `nvidia-smi` works"),
    code(4, "CUDA_ERROR_DEINITIALIZED", "the driver is shutting down", ""),
    code(34, "CUDA_ERROR_STUB_LIBRARY", "the libcuda that was found is the toolkit's stub", "Put the driver's own libcuda.so.1 before the toolkit's stubs folder in LD_LIBRARY_PATH"),
    code(46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "the GPU is busy or in exclusive mode", "Another process holds it: see `nvidia-smi`"),
    code(100, "CUDA_ERROR_NO_DEVICE", "the driver sees no GPU", "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES"),
    code(101, "CUDA_ERROR_INVALID_DEVICE", "there is no GPU with this number", "`nvidia-smi -L` lists the GPUs"),
    code(200, "CUDA_ERROR_INVALID_IMAGE", "the kernel image is not valid", A_BUG),
    code(201, "CUDA_ERROR_INVALID_CONTEXT", "no context is current on this thread", A_BUG),
    code(209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "the kernel image has no code for this GPU", "hyperion needs compute capability 8.0 or later"),
    code(214, "CUDA_ERROR_ECC_UNCORRECTABLE", "an uncorrectable memory error", CHECK_HARDWARE),
    code(218, "CUDA_ERROR_INVALID_PTX", "the driver's compiler rejected the PTX", A_BUG),
    code(219, "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT", "an invalid graphics context", ""),
    code(220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", "an uncorrectable NVLink error", CHECK_HARDWARE),
    code(221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "the driver's PTX compiler is missing", "Install the driver's libnvidia-ptxjitcompiler beside libcuda.so.1"),
    code(222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the driver is older than the PTX", "Update the NVIDIA driver"),
    code(223, "CUDA_ERROR_JIT_COMPILATION_DISABLED", "compiling PTX is disabled", "Unset CUDA_DISABLE_PTX_JIT"),
    code(300, "CUDA_ERROR_INVALID_SOURCE", "the kernel source is not valid", A_BUG),
    code(304, "CUDA_ERROR_OPERATING_SYSTEM", "an operating system call failed", "Check access to /dev/nvidia* and the locked-memory limit (`ulimit -l`)"),
    code(400, "CUDA_ERROR_INVALID_HANDLE", "a handle is not valid", A_BUG),
    code(401, "CUDA_ERROR_ILLEGAL_STATE", "the object is in the wrong state", A_BUG),
    code(500, "CUDA_ERROR_NOT_FOUND", "a named symbol does not exist", A_BUG),
    code(600, "CUDA_ERROR_NOT_READY", "the work is not finished", ""),
    code(700, "CUDA_ERROR_ILLEGAL_ADDRESS", "a kernel read or wrote outside its memory", FIND_THE_KERNEL),
    code(701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "a launch asks for too many registers, threads or too much shared memory", A_BUG),
    code(702, "CUDA_ERROR_LAUNCH_TIMEOUT", "a kernel ran longer than the display watchdog allows", "Use a GPU that drives no display"),
    code(710, "CUDA_ERROR_ASSERT", "an assertion failed in a kernel", FIND_THE_KERNEL),
    code(712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "the host memory is already page-locked", A_BUG),
    code(714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "a kernel's stack is corrupt or too large", FIND_THE_KERNEL),
    code(715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "a kernel ran an illegal instruction", FIND_THE_KERNEL),
    code(716, "CUDA_ERROR_MISALIGNED_ADDRESS", "a kernel made a misaligned access", FIND_THE_KERNEL),
    code(717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "a kernel used an address of the wrong kind", FIND_THE_KERNEL),
    code(718, "CUDA_ERROR_INVALID_PC", "a kernel jumped outside its code", FIND_THE_KERNEL),
    code(719, "CUDA_ERROR_LAUNCH_FAILED", "a kernel failed", FIND_THE_KERNEL),
    code(800, "CUDA_ERROR_NOT_PERMITTED", "the operation is not permitted", "Check the container's or the MIG partition's rights"),
    code(801, "CUDA_ERROR_NOT_SUPPORTED", "the GPU or the driver does not support the operation", "Update the NVIDIA driver"),
    code(802, "CUDA_ERROR_SYSTEM_NOT_READY", "the machine's GPU services have not started", "Start nvidia-fabricmanager (NVSwitch machines need it) and wait"),
    code(803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "libcuda and the kernel driver have different versions", "Reboot after a driver update, or mend the container's libcuda.so.1"),
    code(804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "the CUDA compatibility package does not support this GPU", "Remove cuda-compat from LD_LIBRARY_PATH, or update the driver"),
    code(900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "the operation cannot be captured in a graph", A_BUG),
    code(901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "an earlier error spoiled the graph capture", A_BUG),
    code(906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "an operation on the default stream reached into a graph capture", A_BUG),
    code(910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "the graph could not be updated", A_BUG),
    code(999, "CUDA_ERROR_UNKNOWN", "the driver does not say", CHECK_HARDWARE),
];

/// cuBLAS codes, ascending.
#[rustfmt::skip]
pub const CUBLAS: &[Code] = &[
    code(1, "CUBLAS_STATUS_NOT_INITIALIZED", "cuBLAS could not start", "Its version may be newer than the driver, or the GPU is out of memory: try cuBLAS 12 with an older driver"),
    code(3, "CUBLAS_STATUS_ALLOC_FAILED", "cuBLAS could not allocate memory", "Close other programs on the GPU, or lower the context size or the batch"),
    code(7, "CUBLAS_STATUS_INVALID_VALUE", "an argument is out of range", A_BUG),
    code(8, "CUBLAS_STATUS_ARCH_MISMATCH", "this cuBLAS does not support the GPU", "Install a cuBLAS that supports it"),
    code(11, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory failed", A_BUG),
    code(13, "CUBLAS_STATUS_EXECUTION_FAILED", "the matrix product failed on the GPU", FIND_THE_KERNEL),
    code(14, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal error of cuBLAS", "Check that libcublas and libcublasLt have the same version"),
    code(15, "CUBLAS_STATUS_NOT_SUPPORTED", "cuBLAS does not support this product", A_BUG),
    code(16, "CUBLAS_STATUS_LICENSE_ERROR", "cuBLAS reports a license error", ""),
];

/// CUPTI codes, ascending; those that recording kernels can give.
#[rustfmt::skip]
pub const CUPTI: &[Code] = &[
    code(1, "CUPTI_ERROR_INVALID_PARAMETER", "an argument is out of range", A_BUG),
    code(7, "CUPTI_ERROR_INVALID_OPERATION", "the call is not possible in this state", A_BUG),
    code(8, "CUPTI_ERROR_OUT_OF_MEMORY", "not enough memory for the records", ""),
    code(14, "CUPTI_ERROR_NOT_COMPATIBLE", "another profiler or the driver does not go with CUPTI", "End other profilers, and install a CUPTI of the driver's CUDA version or before"),
    code(15, "CUPTI_ERROR_NOT_INITIALIZED", "CUPTI could not start", "Its version may be newer than the driver: try CUPTI 12 with an older driver"),
    code(21, "CUPTI_ERROR_INVALID_KIND", "a record of an unknown kind", A_BUG),
    code(27, "CUPTI_ERROR_NOT_SUPPORTED", "the GPU or the driver does not support this recording", ""),
    code(33, "CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED", "this virtual GPU cannot be profiled", ""),
    code(35, "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES", "profiling needs more rights", "Run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"),
    code(39, "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED", "another profiler runs in this process", "Run without nsys, ncu or another profiler"),
    code(40, "CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES", "this virtual GPU does not allow profiling", "Ask the hypervisor's administrator"),
    code(41, "CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED", "a GPU in confidential mode cannot be profiled", ""),
    code(43, "CUPTI_ERROR_MIG_DEVICE_NOT_SUPPORTED", "a MIG partition cannot be profiled", ""),
    code(45, "CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED", "a GPU under WSL cannot be profiled", ""),
    code(999, "CUPTI_ERROR_UNKNOWN", "CUPTI does not say", CHECK_HARDWARE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_ascend_and_name_each_code() {
        for (table, prefix) in [
            (DRIVER, "CUDA_ERROR_"),
            (CUBLAS, "CUBLAS_STATUS_"),
            (CUPTI, "CUPTI_ERROR_"),
        ] {
            assert!(table.windows(2).all(|pair| pair[0].code < pair[1].code));
            assert!(
                table
                    .iter()
                    .all(|c| c.name.starts_with(prefix) && !c.meaning.is_empty())
            );
        }
    }

    #[test]
    fn an_error_has_call_code_name_meaning_place_and_hint() {
        let error = CallError::new(Library::Driver, "cuMemAlloc_v2", 2).doing("allocating `kv`");
        assert_eq!(
            error.to_string(),
            "cuMemAlloc_v2 returned CUDA_ERROR_OUT_OF_MEMORY (2): not enough memory on the GPU; \
             while allocating `kv`. Close other programs on the GPU, or lower the context size or \
             the batch"
        );
    }

    #[test]
    fn codes_that_a_user_meets_have_hints() {
        for code in [2, 3, 34, 46, 100, 101, 222, 304, 700, 802, 803, 804] {
            let known = explain(Library::Driver, code).unwrap_or_else(|| panic!("{code}"));
            assert!(!known.hint.is_empty(), "{}", known.name);
        }
    }

    #[test]
    fn an_unknown_code_is_still_reported() {
        let text = CallError::new(Library::Cublas, "cublasGemmEx", 4242).to_string();
        assert!(
            text.contains("cublasGemmEx") && text.contains("4242"),
            "{text}"
        );
    }
}
