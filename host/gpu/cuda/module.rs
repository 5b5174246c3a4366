//! Loads PTX: the driver compiles it (and keeps the result in its own cache) for the GPU.

use super::super::codes::CallError;
use super::super::device::DeviceInfo;
use super::super::entries::KernelTable;
use super::super::error::{GpuError, Result};
use super::api::{
    Api, FUNC_MAX_DYNAMIC_SHARED, FUNC_MAX_THREADS, FUNC_STATIC_SHARED, Handle, JIT_ERROR_LOG,
    JIT_ERROR_LOG_BYTES,
};
use super::quiet::outside_captures;
use std::ffi::CString;

/// Room for the compiler's messages.
const LOG_BYTES: usize = 16 << 10;

/// A loaded module with its kernels.
pub(super) struct Module {
    api: &'static Api,
    handle: Handle,
    /// By kernel id.
    functions: Vec<Handle>,
    /// Names, parameter sizes and limits, by kernel id.
    pub table: KernelTable,
}

// SAFETY: modules and functions may be used from any thread that has their context current; the
// handles never change.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Compiles and loads `ptx` in the current context.
    ///
    /// # Errors
    /// The driver's compiler refuses the PTX: with its log.
    pub fn load(api: &'static Api, ptx: &str, info: &DeviceInfo) -> Result<Self> {
        let table = KernelTable::parse(ptx)?;
        let quiet = outside_captures();
        let handle = compile(api, ptx)?;
        let mut module = Module {
            api,
            handle,
            functions: Vec::new(),
            table,
        };
        let resolved = module.resolve(info);
        drop(quiet);
        resolved?;
        Ok(module)
    }

    /// Looks every kernel up. That also makes the driver load it now, not in the first launch.
    fn resolve(&mut self, info: &DeviceInfo) -> Result<(), CallError> {
        for entry in self.table.entries_mut() {
            // SAFETY: the module is loaded.
            let found = unsafe {
                function(
                    self.api,
                    self.handle,
                    &entry.name,
                    info.max_shared_per_block,
                )
            };
            let (function, max_threads, static_shared) =
                found.map_err(|e| e.doing(format!("loading kernel `{}`", entry.name)))?;
            entry.max_threads = max_threads;
            entry.static_shared = static_shared;
            self.functions.push(function);
        }
        Ok(())
    }

    /// The function of the kernel at `index` of the table.
    pub fn function(&self, index: usize) -> Handle {
        self.functions[index]
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _quiet = outside_captures();
        // SAFETY: the handle is unloaded once; the owner makes the context current before.
        let _ = unsafe { self.api.cuModuleUnload(self.handle) };
    }
}

fn compile(api: &Api, ptx: &str) -> Result<Handle> {
    let image = CString::new(ptx).map_err(|_| GpuError::Ptx("the text has a NUL".into()))?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
    let mut values = [log.as_mut_ptr().cast(), LOG_BYTES as Handle];
    let mut handle = std::ptr::null_mut();
    // SAFETY: the image ends in NUL, and the log has the size that the options say.
    let loaded = unsafe {
        api.cuModuleLoadDataEx(
            &mut handle,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    loaded.map_err(|source| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]).into_owned();
        GpuError::Compile { source, log }
    })?;
    Ok(handle)
}

/// Looks a kernel up, with its largest block and its static shared memory, and lets it have all the
/// dynamic shared memory that is left (without asking, a kernel gets 48 KiB).
///
/// # Safety
/// `module` is loaded.
unsafe fn function(
    api: &Api,
    module: Handle,
    name: &str,
    max_shared: u32,
) -> Result<(Handle, u32, u32), CallError> {
    // The name comes from the PTX text, which has no NUL.
    let name = CString::new(name).unwrap_or_default();
    let mut function = std::ptr::null_mut();
    let (mut max_threads, mut static_shared) = (0, 0);
    // SAFETY: the module is loaded, the name ends in NUL, the function was found in it.
    unsafe {
        api.cuModuleGetFunction(&mut function, module, name.as_ptr())?;
        api.cuFuncGetAttribute(&mut max_threads, FUNC_MAX_THREADS, function)?;
        api.cuFuncGetAttribute(&mut static_shared, FUNC_STATIC_SHARED, function)?;
        let dynamic = max_shared.saturating_sub(static_shared as u32);
        api.cuFuncSetAttribute(function, FUNC_MAX_DYNAMIC_SHARED, dynamic as i32)?;
    }
    Ok((function, max_threads as u32, static_shared as u32))
}
