//! Typed kernel launches: a kernel's definition fixes the parameter struct that it is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernels_gpu::abi::{DevicePtr, KernelDef, KernelParams};

use crate::backend::NotedLaunch;
use crate::device::{Buffer, Device, KernelId, Launch, Result};

/// Grid, block and dynamic shared memory of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
}

impl Geometry {
    /// A launch without dynamic shared memory.
    pub fn new(grid: [u32; 3], block: u32) -> Geometry {
        Geometry {
            grid,
            block,
            shared_bytes: 0,
        }
    }
}

/// A device with the kernels that have been looked up so far.
pub struct Launcher {
    device: Arc<dyn Device>,
    kernels: Mutex<HashMap<&'static str, KernelId>>,
    /// Launches for a profile, while they are noted.
    notes: Mutex<Option<Notes>>,
}

#[derive(Default)]
struct Notes {
    launches: Vec<NotedLaunch>,
    /// What the next launch moves.
    bytes: Option<u64>,
}

impl Launcher {
    /// A launcher for `device`.
    pub fn new(device: Arc<dyn Device>) -> Launcher {
        Launcher {
            device,
            kernels: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Begins to note launches.
    pub fn note(&self) {
        *self.notes() = Some(Notes::default());
    }

    /// Whether launches are noted.
    pub fn is_noting(&self) -> bool {
        self.notes().is_some()
    }

    /// Ends noting.
    pub fn noted(&self) -> Vec<NotedLaunch> {
        let notes = self.notes().take();
        notes.map(|notes| notes.launches).unwrap_or_default()
    }

    /// Tells how many bytes of weights, keys and values the next launch moves.
    pub fn moves(&self, bytes: usize) {
        if let Some(notes) = &mut *self.notes() {
            notes.bytes = Some(bytes as u64);
        }
    }

    fn notes(&self) -> MutexGuard<'_, Option<Notes>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches `kernel`. Every kernel of the crate waits for its predecessors itself
    /// (`griddepcontrol.wait`), so that all launches may begin early.
    ///
    /// # Safety
    /// [`Device::launch`]'s conditions and those in the kernel's header.
    pub unsafe fn launch<P: KernelParams>(
        &self,
        kernel: &KernelDef<P>,
        geometry: Geometry,
        params: &P,
    ) -> Result<()> {
        let launch = Launch {
            kernel: self.kernel(kernel.name)?,
            grid: geometry.grid,
            block: [geometry.block, 1, 1],
            shared_bytes: geometry.shared_bytes,
            params: bytemuck::bytes_of(params),
            dependent: true,
        };
        if let Some(notes) = &mut *self.notes() {
            notes.launches.push(NotedLaunch {
                kernel: kernel.name,
                bytes: notes.bytes.take(),
            });
        }
        // SAFETY: the caller's.
        unsafe { self.device.launch(&launch) }
    }

    fn kernel(&self, name: &'static str) -> Result<KernelId> {
        // An insertion cannot be left half done, so a poisoned map is still a map.
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kernel) = kernels.get(name) {
            return Ok(kernel);
        }
        let kernel = self.device.kernel(name)?;
        kernels.insert(name, kernel);
        Ok(kernel)
    }
}

/// The address of element `index` of a buffer of `T`.
pub fn at<T>(buffer: &Buffer, index: usize) -> DevicePtr<T> {
    DevicePtr::from_address(buffer.addr() + (index * size_of::<T>()) as u64)
}

/// The address of a buffer's first byte, for parameters whose element type depends on the kernel.
pub fn untyped(buffer: &Buffer) -> DevicePtr<()> {
    DevicePtr::from_address(buffer.addr())
}
