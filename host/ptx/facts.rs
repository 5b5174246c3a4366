//! What the PTX of a kernel says about it: its instructions by kind, its widest load, its memory.

use ptx_sim::{Instruction, Kernel, Module};
use serde::Serialize;

use super::error::{PtxError, Result};
use super::modules::PtxModule;

/// Instructions by what they keep busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InstructionMix {
    /// Loads and copies from memory, parameters excepted.
    pub loads: u32,
    /// Stores and atomics.
    pub stores: u32,
    /// Tensor core products.
    pub tensor: u32,
    /// Float arithmetic and conversions.
    pub float: u32,
    /// Integer arithmetic, moves, selections, addresses.
    pub integer: u32,
    /// Exchanges between the lanes of a warp.
    pub lanes: u32,
    /// Barriers, fences and waits.
    pub barriers: u32,
    /// Branches and returns.
    pub control: u32,
}

impl InstructionMix {
    /// All instructions.
    pub fn total(&self) -> u32 {
        let Self {
            loads,
            stores,
            tensor,
            float,
            integer,
            lanes,
            barriers,
            control,
        } = *self;
        loads + stores + tensor + float + integer + lanes + barriers + control
    }

    fn count(&mut self, opcode: &str) {
        let is = |names: &[&str]| names.iter().any(|name| opcode.starts_with(name));
        let place = if is(&["cp.async.c", "ld.", "ldmatrix"]) {
            // Parameters come from the constant bank.
            match opcode.starts_with("ld.param") {
                true => &mut self.integer,
                false => &mut self.loads,
            }
        } else if is(&["st.", "atom.", "red."]) {
            &mut self.stores
        } else if is(&["mma."]) {
            &mut self.tensor
        } else if is(&["shfl.", "vote.", "redux.", "match.", "activemask"]) {
            &mut self.lanes
        } else if is(&["bar.", "membar", "fence", "griddepcontrol", "cp.async."]) {
            &mut self.barriers
        } else if is(&["bra", "ret", "exit", "trap", "call"]) {
            &mut self.control
        } else if opcode.split('.').any(is_float) {
            &mut self.float
        } else {
            &mut self.integer
        };
        *place += 1;
    }
}

/// Whether a modifier names a float type.
fn is_float(modifier: &str) -> bool {
    matches!(
        modifier,
        "f16" | "f16x2" | "bf16" | "bf16x2" | "f32" | "f64" | "tf32"
    )
}

/// The facts of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelFacts {
    /// Its name.
    pub name: String,
    /// Bytes of its parameter struct.
    pub param_bytes: u32,
    /// Static shared memory in bytes.
    pub static_shared_bytes: u32,
    /// Whether it takes dynamic shared memory too.
    pub dynamic_shared: bool,
    /// Local memory in bytes: an array that did not stay in registers.
    pub local_bytes: u32,
    /// The most threads that a block may have.
    pub max_threads: u32,
    /// Bytes of the widest load of a thread from global memory.
    pub widest_load: u32,
    /// Bytes of the widest of those that go to shared memory while the thread goes on (`cp.async`).
    pub widest_copy: u32,
    /// Its instructions.
    pub mix: InstructionMix,
    /// Functions that it calls.
    pub callees: Vec<String>,
    /// Instructions in double precision, which GPUs for graphics run at a 64th of the speed.
    pub doubles: u32,
}

/// The facts of all kernels of a module, in its order.
///
/// # Errors
/// PTX that `ptx_sim` cannot read, with the line.
pub fn facts(module: &'static PtxModule) -> Result<Vec<KernelFacts>> {
    let parsed =
        Module::parse(module.ptx()).map_err(|error| PtxError::Unreadable(error.to_string()))?;
    let kernels = module.kernels.iter().filter_map(|entry| {
        let kernel = parsed.kernel(entry.name)?;
        Some(of(kernel, entry.max_threads))
    });
    Ok(kernels.collect())
}

fn of(kernel: &Kernel, max_threads: u32) -> KernelFacts {
    let mut mix = InstructionMix::default();
    let (mut widest_load, mut widest_copy, mut doubles) = (0, 0, 0);
    for instruction in kernel.instructions() {
        mix.count(instruction.opcode());
        let bytes = global_load_bytes(instruction);
        widest_load = widest_load.max(bytes);
        if is_copy(instruction.opcode()) {
            widest_copy = widest_copy.max(bytes);
        }
        doubles += u32::from(instruction.opcode().split('.').any(|part| part == "f64"));
    }
    KernelFacts {
        name: kernel.name().to_owned(),
        param_bytes: kernel.param_bytes(),
        static_shared_bytes: kernel.static_shared_bytes(),
        dynamic_shared: kernel.uses_dynamic_shared(),
        local_bytes: kernel.local_bytes(),
        max_threads,
        widest_load,
        widest_copy,
        mix,
        callees: kernel.callees().to_vec(),
        doubles,
    }
}

/// Whether it copies from global to shared memory, with either cache hint (`cp.async.ca`, `cp.async.cg`).
/// Commits and waits are `cp.async.commit_group` and `cp.async.wait_group`.
fn is_copy(opcode: &str) -> bool {
    opcode.starts_with("cp.async.ca") || opcode.starts_with("cp.async.cg")
}

/// Bytes that a thread loads from global memory with an instruction; 0 if it is another one.
fn global_load_bytes(instruction: &Instruction) -> u32 {
    let opcode = instruction.opcode();
    if is_copy(opcode) {
        // `cp.async... [shared], [global], BYTES` and maybe the bytes that are not zeros.
        let size = instruction.text().split(',').nth(2);
        return size.and_then(|size| size.trim().parse().ok()).unwrap_or(0);
    }
    if !opcode.starts_with("ld.global") {
        return 0;
    }
    let mut bytes = 0;
    let mut elements = 1;
    for part in opcode.split('.') {
        match part {
            "v2" => elements = 2,
            "v4" => elements = 4,
            _ => {
                if let Some(bits) = part.strip_prefix(['b', 'u', 's', 'f']) {
                    bytes = bits.parse::<u32>().map_or(bytes, |bits| bits / 8);
                }
            }
        }
    }
    elements * bytes
}
