//! Times the kernels that read weights on a GPU: `kernel_bench [NAME-PART]...` runs those whose name
//! or shape contains one of the parts, or all. `kernel_bench q4_k_q8 q4_k_t` compares the ways to multiply Q4_K: with
//! few vectors, with some in 8 bits, and with many in f16.
//!
//! Each runs in a recorded graph, with programmatic dependent launch as in a decode step, on copies of
//! the weights that together do not fit in the L2 cache. Beside the time is the bandwidth, and its share of
//! what a copy on the same device reaches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyperion::device::choice::{self, DeviceChoice};
use hyperion::device::{Buffer, Device, Launch};
use hyperion::ptx;
use kernels_gpu::abi::{
    DequantizeParams, DevicePtr, KernelDef, KernelParams, MatmulParams, MatmulPlan, MatmulQ8Params,
    MatmulQ8Plan, MatvecEpilogue, MatvecOrder, MatvecParams, MatvecPlan, MatvecSegment, Q8Vectors,
    UNPACK_THREADS, UnpackPlan, VectorFormat, WeightType, matvec_alone_bytes, matvec_beside_bytes,
    matvec_pair_ends, q8_vectors_bytes,
};
use kernels_gpu::ops::{dequantize, matmul_entries, matmul_q8_entries, matvec_entries};

/// Rows and columns of the matrices of models from 135M to 8B.
const SHAPES: [(u32, u32); 10] = [
    (128_256, 4096),
    (28_672, 4096),
    (14_336, 4096),
    (4096, 14_336),
    (4096, 4096),
    (2048, 2048),
    (896, 896),
    (4864, 896),
    (576, 576),
    (1536, 576),
];

const TYPES: [WeightType; 6] = [
    WeightType::Q4K,
    WeightType::Q6K,
    WeightType::Q8_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::F16,
];

/// Launches of a graph, at least.
const LAUNCHES: usize = 40;
/// Runs of a graph, of which the median counts.
const RUNS: usize = 9;

fn main() -> Result<()> {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let opened = choice::open(DeviceChoice::Cuda(None), &ptx::embedded())?;
    let bench = Bench::new(opened.device.context("no GPU")?, parts)?;
    println!("{}", bench.device.info());
    println!("copy: {:.0} GB/s, read and written\n", bench.copy_bandwidth);
    println!(
        "| kernel | matrix | vectors | time | GB/s | of copy |\n| --- | --- | ---: | ---: | ---: | ---: |"
    );
    for (n_out, n_in) in SHAPES {
        for ty in TYPES {
            if !n_in.is_multiple_of(ty.block_elements()) {
                continue;
            }
            for vectors in [1, 4, 5, 6, 7, 8] {
                bench.matvec(ty, n_out, n_in, vectors)?;
            }
            for vectors in [5, 6, 7, 8, 16, 32, 64, 128, 256] {
                bench.matmul(ty, n_out, n_in, vectors)?;
            }
            for vectors in [2, 4, 8, 16, 24, 32] {
                bench.matmul_q8(ty, n_out, n_in, vectors)?;
            }
            bench.dequantize(ty, n_out, n_in)?;
        }
    }
    Ok(())
}

struct Bench {
    device: Arc<dyn Device>,
    parts: Vec<String>,
    /// GB/s.
    copy_bandwidth: f64,
}

impl Bench {
    fn new(device: Arc<dyn Device>, parts: Vec<String>) -> Result<Self> {
        let copy_bandwidth = hyperion::device::copy_bandwidth(&*device)? / 1e9;
        Ok(Self {
            device,
            parts,
            copy_bandwidth,
        })
    }

    fn matvec(&self, ty: WeightType, n_out: u32, n_in: u32, vectors: u32) -> Result<()> {
        let activations = if ty.is_quantized() {
            VectorFormat::Q8
        } else {
            VectorFormat::F16
        };
        let info = self.device.info();
        let plan = MatvecPlan::new(
            ty,
            activations,
            false,
            n_out,
            n_in,
            vectors,
            info.multiprocessors,
            info.max_shared_per_block,
        );
        let Some(plan) = plan else { return Ok(()) };
        let kernel = matvec_entries::kernel(ty, activations, plan.vectors)
            .context("the plan is for a kernel that there is")?;
        let x = self.filled((vectors * n_in) as usize * 4, "x")?;
        let norm_weight = self.filled(n_in as usize * 4, "norm weight")?;
        self.product(&kernel, ty, [n_out, n_in, vectors], &|i, segments| {
            let params = MatvecParams {
                x: DevicePtr::from_address(x.addr()),
                norm_weight: DevicePtr::from_address(norm_weight.addr()),
                residual: DevicePtr::NULL,
                residual_weight: DevicePtr::NULL,
                x_out: DevicePtr::NULL,
                segments,
                n_in,
                vectors,
                x_stride: n_in,
                epsilon: 1e-5,
                epilogue: MatvecEpilogue::Store as u32,
                row_split_log2: plan.row_split_log2,
                pair_ends: matvec_pair_ends(&segments, MatvecEpilogue::Store),
                order: MatvecOrder::InTurn as u32,
            };
            let spread = match i.is_multiple_of(2) {
                true => matvec_alone_bytes(info.max_shared_per_block),
                false => matvec_beside_bytes(info.max_shared_per_block),
            };
            let shared_bytes = plan.shared_bytes.max(spread);
            ([plan.grid, 1, 1], plan.block, shared_bytes, params)
        })
    }

    fn matmul(&self, ty: WeightType, n_out: u32, n_in: u32, vectors: u32) -> Result<()> {
        let info = self.device.info();
        let plan = MatmulPlan::new(
            ty,
            [n_out, 0, 0],
            n_in,
            vectors,
            info.multiprocessors,
            info.max_shared_per_block,
        );
        let Some(plan) = plan else { return Ok(()) };
        let Some(kernel) = matmul_entries::kernel(ty, plan.tiles) else {
            return Ok(());
        };
        let x = self.filled((vectors * n_in) as usize * 2, "x")?;
        self.product(&kernel, ty, [n_out, n_in, vectors], &|_, segments| {
            let params = MatmulParams {
                x: DevicePtr::from_address(x.addr()),
                segments,
                scales: DevicePtr::NULL,
                maxima: DevicePtr::NULL,
                n_in,
                vectors,
                accumulate: 0,
                k_groups_log2: plan.k_groups.ilog2(),
                stages: plan.stages,
                row_groups_log2: plan.row_groups.ilog2(),
                block_ends: plan.block_ends,
                scale: 1.0,
                reserved: 0,
            };
            (plan.grid, plan.block, plan.shared_bytes, params)
        })
    }

    fn matmul_q8(&self, ty: WeightType, n_out: u32, n_in: u32, vectors: u32) -> Result<()> {
        let info = self.device.info();
        let plan = MatmulQ8Plan::new(
            ty,
            [n_out, 0, 0],
            n_in,
            vectors,
            info.multiprocessors,
            info.max_shared_per_block,
        );
        let Some(plan) = plan else { return Ok(()) };
        let Some(kernel) = matmul_q8_entries::kernel(ty, plan.tiles) else {
            return Ok(());
        };
        let [elements, scales] = q8_vectors_bytes(n_in, vectors);
        let elements = self.filled(elements as usize, "elements")?;
        let scales = self.filled(scales as usize, "scales")?;
        self.product(&kernel, ty, [n_out, n_in, vectors], &|_, segments| {
            let params = MatmulQ8Params {
                x: Q8Vectors {
                    elements: DevicePtr::from_address(elements.addr()),
                    scales: DevicePtr::from_address(scales.addr()),
                    sums: DevicePtr::from_address(scales.addr()),
                },
                segments,
                n_in,
                vectors,
                tile_ends: plan.tile_ends,
                k_groups_log2: plan.k_groups.ilog2(),
                accumulate: 0,
                order: MatvecOrder::InTurn as u32,
            };
            (plan.grid, plan.block, plan.shared_bytes, params)
        })
    }

    /// Times `kernel` for the product of a matrix with vectors, if it is wanted. `launch` gives the blocks of launch `i`,
    /// their threads and shared memory, and its parameters with these segments.
    fn product<P: KernelParams>(
        &self,
        kernel: &KernelDef<P>,
        ty: WeightType,
        [n_out, n_in, vectors]: [u32; 3],
        launch: &dyn Fn(usize, [MatvecSegment; 3]) -> ([u32; 3], u32, u32, P),
    ) -> Result<()> {
        if !self.wanted(kernel.name, n_out, n_in) {
            return Ok(());
        }
        let weight_bytes = n_out as usize * ty.row_bytes(n_in) as usize;
        let (copies, weights) = self.weights(weight_bytes)?;
        let y = self.filled((vectors * n_out) as usize * 4, "y")?;
        let time = self.time(LAUNCHES.max(copies), &mut |i| {
            let copy = (i % copies * aligned(weight_bytes)) as u64;
            let segment = MatvecSegment {
                weights: DevicePtr::from_address(weights.addr() + copy),
                y: DevicePtr::from_address(y.addr()),
                bias: DevicePtr::NULL,
                n_out,
                y_stride: n_out,
            };
            let segments = [segment, MatvecSegment::NONE, MatvecSegment::NONE];
            let (grid, threads, shared_bytes, params) = launch(i, segments);
            self.launch(kernel, grid, threads, shared_bytes, &params)
        })?;
        self.print(kernel.name, [n_out, n_in], vectors, time, weight_bytes);
        Ok(())
    }

    fn dequantize(&self, ty: WeightType, n_out: u32, n_in: u32) -> Result<()> {
        let kernel = dequantize::kernel(ty);
        if !self.wanted(kernel.name, n_out, n_in) {
            return Ok(());
        }
        let n = n_out as usize * n_in as usize;
        let weight_bytes = n_out as usize * ty.row_bytes(n_in) as usize;
        let (copies, weights) = self.weights(weight_bytes)?;
        // As in prefill, where one buffer serves all matrices.
        let y = self.device.alloc(2 * n, "y")?;
        let plan = UnpackPlan::dequantize(ty, n as u64, self.device.info().multiprocessors);
        let time = self.time(LAUNCHES.max(copies), &mut |i| {
            let copy = (i % copies * aligned(weight_bytes)) as u64;
            let params = DequantizeParams {
                weights: DevicePtr::from_address(weights.addr() + copy),
                y: DevicePtr::from_address(y.addr()),
                n: n as u64,
                factor: 1.0,
                reserved: 0,
            };
            self.launch(
                &kernel,
                plan.grid,
                UNPACK_THREADS,
                plan.shared_bytes,
                &params,
            )
        })?;
        self.print(kernel.name, [n_out, n_in], 0, time, weight_bytes + 2 * n);
        Ok(())
    }

    /// Copies of a matrix, three times the L2 cache together, and their number.
    fn weights(&self, bytes: usize) -> Result<(usize, Buffer)> {
        let all = 3 * self.device.info().l2_bytes as usize;
        let copies = all.div_ceil(bytes).max(2);
        Ok((copies, self.filled(copies * aligned(bytes), "weights")?))
    }

    /// A buffer of small numbers in every type.
    fn filled(&self, bytes: usize, label: &str) -> Result<Buffer> {
        let buffer = self.device.alloc(bytes, label)?;
        self.device.fill(buffer.all(), 0x2b)?;
        Ok(buffer)
    }

    fn launch<P: KernelParams>(
        &self,
        kernel: &KernelDef<P>,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        params: &P,
    ) -> Result<()> {
        let launch = Launch {
            kernel: self.device.kernel(kernel.name)?,
            grid,
            block: [threads, 1, 1],
            shared_bytes,
            params: bytemuck::bytes_of(params),
            dependent: true,
        };
        // SAFETY: the caller's buffers are as long as the parameters say, and outlive the graph.
        Ok(unsafe { self.device.launch(&launch) }?)
    }

    /// The median time of one of `count` launches that `launch` sends.
    fn time(&self, count: usize, launch: &mut dyn FnMut(usize) -> Result<()>) -> Result<Duration> {
        // Loads the kernel, which a recording cannot.
        launch(0)?;
        self.device.synchronize()?;
        let mut failed = None;
        let graph = self.device.capture(&mut || {
            for i in 0..count {
                if let Err(error) = launch(i) {
                    failed = Some(error);
                    break;
                }
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            bail!(error);
        }
        let mut timer = self.device.timer()?;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            timer.start()?;
            // SAFETY: the caller's buffers live until this function returns, after the last wait.
            unsafe { graph.replay() }?;
            timer.stop()?;
            times.push(timer.elapsed()?);
        }
        times.sort();
        Ok(times[RUNS / 2] / count as u32)
    }

    fn wanted(&self, kernel: &str, n_out: u32, n_in: u32) -> bool {
        let text = format!("{kernel} {n_out}x{n_in}");
        self.parts.is_empty() || self.parts.iter().any(|part| text.contains(part.as_str()))
    }

    /// A row of the table; a kernel without vectors has none in its column.
    fn print(
        &self,
        kernel: &str,
        [n_out, n_in]: [u32; 2],
        vectors: u32,
        time: Duration,
        bytes: usize,
    ) {
        let bandwidth = bytes as f64 / time.as_secs_f64() / 1e9;
        let vectors = match vectors {
            0 => String::new(),
            vectors => vectors.to_string(),
        };
        println!(
            "| {kernel} | {n_out}x{n_in} | {vectors} | {:.2} us | {bandwidth:.0} | {:.0} % |",
            time.as_secs_f64() * 1e6,
            100.0 * bandwidth / self.copy_bandwidth
        );
    }
}

/// Where the next copy of a matrix can begin.
fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(256)
}
