//! Loads kernels: the driver compiles their PTX for the GPU (and keeps the result in its own cache).

use super::super::codes::CallError;
use super::super::entries::{Entry, KernelTable};
use super::super::error::{DeviceError, Result};
use super::super::traits::{DeviceInfo, KernelId};
use super::api::{
    Api, FUNC_MAX_DYNAMIC_SHARED, FUNC_MAX_THREADS, FUNC_SHARED_CARVEOUT, FUNC_STATIC_SHARED,
    Handle, JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES,
};
use super::quiet::{outside_captures, refuse_in_capture};
use crate::ptx::KernelTexts;
use std::ffi::CString;
use std::sync::OnceLock;

/// Room for the compiler's messages.
const LOG_BYTES: usize = 16 << 10;

/// The kernels of a PTX text, each compiled when it is first asked for: a model needs a tenth of them,
/// and all together take half a minute where the driver has not kept them from an earlier run.
pub(super) struct Module {
    api: &'static Api,
    ptx: &'static str,
    texts: KernelTexts<'static>,
    /// Of each kernel's dynamic shared memory, at most.
    max_shared: u32,
    /// Names and parameter sizes, by kernel id.
    table: KernelTable,
    /// By kernel id.
    kernels: Vec<OnceLock<Kernel>>,
}

/// A kernel that has been compiled and loaded, in a module of its own.
pub(super) struct Kernel {
    api: &'static Api,
    module: Handle,
    /// What is launched.
    pub function: Handle,
    /// Name, parameter size and limits.
    pub entry: Entry,
}

// SAFETY: modules and functions may be used from any thread that has their context current; the
// handles never change.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Module {
    /// The kernels of `ptx`.
    ///
    /// # Errors
    /// An entry point that cannot be read.
    pub fn new(api: &'static Api, ptx: &'static str, info: &DeviceInfo) -> Result<Self> {
        let table = KernelTable::parse(ptx)?;
        let kernels = table.entries().iter().map(|_| OnceLock::new()).collect();
        Ok(Module {
            api,
            ptx,
            texts: KernelTexts::find(ptx),
            max_shared: info.max_shared_per_block,
            table,
            kernels,
        })
    }

    /// The id of kernel `name`, which is compiled and loaded in the current context if it is not yet.
    ///
    /// # Errors
    /// There is no such kernel, or the driver's compiler refuses it: with its log.
    pub fn load(&self, name: &str) -> Result<KernelId> {
        let id = self.table.find(name)?;
        let place = &self.kernels[id.0 as usize];
        if place.get().is_none() {
            refuse_in_capture("loading a kernel")?;
            let _quiet = outside_captures();
            let alone = self.texts.only(|kernel| kernel == name);
            let text = alone.as_deref().unwrap_or(self.ptx);
            let kernel = Kernel::load(self.api, text, self.table.get(id)?, self.max_shared)?;
            // Another thread's, loaded meanwhile, is as good.
            let _ = place.set(kernel);
        }
        Ok(id)
    }

    /// A kernel that was loaded before.
    ///
    /// # Errors
    /// It was not: the id is another device's.
    pub fn kernel(&self, id: KernelId) -> Result<&Kernel> {
        let loaded = self.kernels.get(id.0 as usize).and_then(OnceLock::get);
        loaded.ok_or_else(|| DeviceError::NoKernel {
            name: format!("number {}", id.0),
            count: self.kernels.len(),
        })
    }
}

impl Kernel {
    fn load(api: &'static Api, ptx: &str, entry: &Entry, max_shared: u32) -> Result<Kernel> {
        let module = compile(api, ptx)?;
        let mut kernel = Kernel {
            api,
            module,
            function: std::ptr::null_mut(),
            entry: entry.clone(),
        };
        // SAFETY: the module is loaded.
        let found = unsafe { function(api, module, &entry.name, max_shared) };
        let (function, max_threads, static_shared) =
            found.map_err(|e| e.doing(format!("loading kernel `{}`", entry.name)))?;
        kernel.function = function;
        kernel.entry.max_threads = max_threads;
        kernel.entry.static_shared = static_shared;
        Ok(kernel)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _quiet = outside_captures();
        // SAFETY: the handle is unloaded once; the owner makes the context current before.
        let _ = unsafe { self.api.cuModuleUnload(self.module) };
    }
}

fn compile(api: &Api, ptx: &str) -> Result<Handle> {
    let image = CString::new(ptx).map_err(|_| DeviceError::Ptx("the text has a NUL".into()))?;
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
        DeviceError::Compile { source, log }
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
        // In percent. The same for all: a multiprocessor changes its division between shared memory
        // and L1 cache only when it is empty, which would keep a kernel from starting beside another.
        api.cuFuncSetAttribute(function, FUNC_SHARED_CARVEOUT, 100)?;
    }
    Ok((function, max_threads as u32, static_shared as u32))
}
