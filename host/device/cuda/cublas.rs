//! cuBLAS, loaded at run time through declarations of our own (`cublas_api.h`, versions 12 and 13).

use super::super::codes::{CallError, Library as Origin};
use super::super::driver::loader_text;
use super::super::error::{DeviceError, Result};
use super::super::gemm::GemmType;
use super::super::gemm_call::{GemmCall, Op};
use super::api::Handle;
use super::quiet::outside_captures;
use super::search::{CUBLAS, Roots, candidates};
use libloading::Library;
use std::ffi::c_void;
use std::path::{Path, PathBuf};

/// Device memory that a handle works in: NVIDIA's advice for Hopper, and enough elsewhere. Our own,
/// since cuBLAS's pool cannot be used while a graph is captured.
pub const WORKSPACE_BYTES: usize = 32 << 20;

/// `CUDA_R_16F` and `CUDA_R_32F`.
const R_16F: i32 = 2;
const R_32F: i32 = 0;
/// `CUBLAS_COMPUTE_32F`.
const COMPUTE_32F: i32 = 68;
/// `CUBLAS_GEMM_DEFAULT`.
const GEMM_DEFAULT: i32 = -1;
/// `CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION`: partial sums of a split
/// product stay in f32 when the result is f16.
const MATH_MODE: u32 = 16;

type GemmEx = unsafe extern "C" fn(
    Handle,
    i32,
    i32,
    i32,
    i32,
    i32,
    *const c_void,
    *const c_void,
    i32,
    i32,
    *const c_void,
    i32,
    i32,
    *const c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
) -> u32;

/// A cuBLAS handle on one stream.
pub(super) struct Cublas {
    handle: Handle,
    gemm_ex: GemmEx,
    destroy: unsafe extern "C" fn(Handle) -> u32,
    version: i32,
    path: PathBuf,
    /// Keeps the code mapped; dropped after the handle.
    _loaded: Loaded,
}

/// libcublas, and libcublasLt of the same folder, which it needs and the loader may not find.
struct Loaded {
    main: Library,
    _light: Option<Library>,
}

// SAFETY: cuBLAS handles may be used from any thread; `gemm` takes `&mut self`, so from one at a time.
unsafe impl Send for Cublas {}

impl Cublas {
    /// Finds and starts cuBLAS for the current context.
    ///
    /// # Errors
    /// [`DeviceError::NoCublas`] with the places searched and why each library found was no good.
    ///
    /// # Safety
    /// A context is current, `stream` is one of its streams, and `workspace` is the address of
    /// [`WORKSPACE_BYTES`] of its memory that outlive the handle and serve nothing else.
    pub unsafe fn open(stream: Handle, workspace: u64) -> Result<Self> {
        let searched = Roots::from_environment(|name| std::env::var_os(name)).folders(&CUBLAS);
        let mut failures = Vec::new();
        let on_loader_path = CUBLAS.names.iter().map(PathBuf::from);
        for path in on_loader_path.chain(candidates(&CUBLAS, &searched)) {
            let started = match load(&path) {
                // SAFETY: the caller's promise.
                Ok(loaded) => unsafe { Self::start(loaded, &path, stream, workspace) },
                // A bare name that the loader does not know is no finding.
                Err(_) if path.components().count() == 1 => continue,
                Err(why) => Err(why),
            };
            match started {
                Ok(cublas) => return Ok(cublas),
                Err(why) => failures.push(format!("{}: {why}", path.display())),
            }
        }
        Err(DeviceError::NoCublas { searched, failures })
    }

    /// # Safety
    /// As for [`Cublas::open`].
    unsafe fn start(
        loaded: Loaded,
        path: &Path,
        stream: Handle,
        workspace: u64,
    ) -> Result<Self, String> {
        let main = &loaded.main;
        let text = |error: libloading::Error| loader_text(&error);
        // SAFETY: the signatures are those of `cublas_api.h`; the arguments are the caller's promise.
        unsafe {
            let create: unsafe extern "C" fn(*mut Handle) -> u32 =
                *main.get("cublasCreate_v2").map_err(text)?;
            let destroy = *main.get("cublasDestroy_v2").map_err(text)?;
            let set_stream: unsafe extern "C" fn(Handle, Handle) -> u32 =
                *main.get("cublasSetStream_v2").map_err(text)?;
            let set_workspace: unsafe extern "C" fn(Handle, *mut c_void, usize) -> u32 =
                *main.get("cublasSetWorkspace_v2").map_err(text)?;
            let set_math: unsafe extern "C" fn(Handle, u32) -> u32 =
                *main.get("cublasSetMathMode").map_err(text)?;
            let get_version: unsafe extern "C" fn(Handle, *mut i32) -> u32 =
                *main.get("cublasGetVersion_v2").map_err(text)?;
            let gemm_ex = *main.get("cublasGemmEx").map_err(text)?;

            let quiet = outside_captures();
            let mut handle = std::ptr::null_mut();
            status("cublasCreate_v2", create(&mut handle)).map_err(|e| e.to_string())?;
            let mut cublas = Cublas {
                handle,
                gemm_ex,
                destroy,
                version: 0,
                path: path.to_owned(),
                _loaded: loaded,
            };
            let memory = workspace as *mut c_void;
            // The stream first: setting it takes the workspace away.
            let set_up = [
                ("cublasSetStream_v2", set_stream(handle, stream)),
                (
                    "cublasSetWorkspace_v2",
                    set_workspace(handle, memory, WORKSPACE_BYTES),
                ),
                ("cublasSetMathMode", set_math(handle, MATH_MODE)),
                (
                    "cublasGetVersion_v2",
                    get_version(handle, &mut cublas.version),
                ),
            ];
            drop(quiet);
            for (call, code) in set_up {
                status(call, code).map_err(|e| e.to_string())?;
            }
            Ok(cublas)
        }
    }

    /// cuBLAS's version and where it was found.
    pub fn describe(&self) -> String {
        let (major, minor) = (self.version / 10_000, self.version / 100 % 100);
        format!("cuBLAS {major}.{minor} ({})", self.path.display())
    }

    /// Sends a product to the stream.
    ///
    /// # Safety
    /// The operands are live device memory that covers [`GemmCall::extents`].
    pub unsafe fn gemm(&mut self, call: &GemmCall) -> Result<(), CallError> {
        let op = |op| i32::from(op == Op::T);
        let alpha = call.factor;
        let beta = if call.accumulate { 1.0f32 } else { 0.0 };
        let c_ty = if call.c_ty == GemmType::F16 {
            R_16F
        } else {
            R_32F
        };
        // SAFETY: the signature is that of `cublas_api.h`; `alpha` and `beta` are host pointers, the
        // handle's default; the operands are the caller's promise.
        let code = unsafe {
            (self.gemm_ex)(
                self.handle,
                op(call.op_a),
                op(call.op_b),
                call.m as i32,
                call.n as i32,
                call.k as i32,
                (&raw const alpha).cast(),
                call.a as *const c_void,
                R_16F,
                call.lda as i32,
                call.b as *const c_void,
                R_16F,
                call.ldb as i32,
                (&raw const beta).cast(),
                call.c as *mut c_void,
                c_ty,
                call.ldc as i32,
                COMPUTE_32F,
                GEMM_DEFAULT,
            )
        };
        status("cublasGemmEx", code)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        let _quiet = outside_captures();
        // SAFETY: the handle came from `cublasCreate_v2` and is destroyed once.
        unsafe { (self.destroy)(self.handle) };
    }
}

fn status(call: &'static str, code: u32) -> Result<(), CallError> {
    match code {
        0 => Ok(()),
        code => Err(CallError::new(Origin::Cublas, call, code)),
    }
}

fn load(path: &Path) -> Result<Loaded, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let light_path = path.with_file_name(name.replace("libcublas", "libcublasLt"));
    // SAFETY: the initializers of both libraries may run at any time.
    let (light, main) = unsafe { (Library::new(light_path).ok(), Library::new(path)) };
    let main = main.map_err(|error| loader_text(&error))?;
    Ok(Loaded {
        main,
        _light: light,
    })
}
