//! A model on a GPU, real or simulated.
//!
//! A step becomes a [`Pass`](pass::Pass) over the backend's memory. A step of one new token for each sequence is
//! recorded in a graph (`steps`, `graphs`). With a few sequences ([`DECODE_SEQUENCES`]) it takes the matrix-vector
//! kernels (`decode`); with more of them ([`Q8_SEQUENCES`]) those for products in 8 bits on integer tensor cores
//! (`decode_q8`). With still more (`decode_batch`), and in a step of any tokens (`prefill`), products are in
//! f16 on tensor cores: quantized matrices straight from their blocks with few tokens, unpacked and with cuBLAS with
//! more (`products`). `ops` has the launches of the kernels, a file each.

mod blocks;
mod buffers;
mod cache;
mod choices;
mod decode;
mod decode_batch;
mod decode_q8;
mod expert_space;
mod expert_trace;
mod experts;
mod graphs;
mod inputs;
mod launcher;
mod logits;
mod ops;
mod pass;
mod prefill;
mod products;
mod scales;
mod steps;
mod trace;
mod under_way;
mod weights;
mod workspace;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kernels_gpu::abi::MAX_EXPERTS;

use crate::backend::{
    self, ActivationPrecision, Backend, BackendError, Instrumented, NoTrace, NotedLaunch,
    PAGE_TOKENS, Row, RowResult, Ticket, TraceSink, check_step,
};
use crate::device::plan::{ContextCost, LOADED_LATER, MemoryPlan};
use crate::device::{Buffer, Device, DeviceError, Result};
use crate::model::Model;
use cache::{KvCache, RopeTable};
use expert_space::MAX_PAIRS;
use graphs::{Graphs, Memory};
use inputs::Inputs;
use launcher::Launcher;
pub use ops::matmul_q8::multiplies_in_q8;
use pass::Setup;
use scales::NormScales;
use trace::DeviceTracer;
use under_way::UnderWay;
use weights::GpuWeights;
use workspace::Workspace;
pub use workspace::{DECODE_SEQUENCES, DEFAULT_CHUNK, Limits, MAX_SEQUENCES, Q8_SEQUENCES};

/// Head sizes that attention has kernels for.
const HEAD_DIMS: [usize; 6] = [32, 64, 80, 96, 128, 256];

/// How a backend computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// What vectors are rounded to.
    pub activations: ActivationPrecision,
    /// A token's keys, values and logits have the same bits in any step: as one of many sequences, in a prompt cut
    /// anywhere, computed again or found in the cache. Products and attention then take one way for any number of
    /// rows, which is slower. Vectors are rounded to f16.
    pub is_deterministic: bool,
}

impl From<ActivationPrecision> for Arithmetic {
    /// The quickest with these vectors.
    fn from(activations: ActivationPrecision) -> Arithmetic {
        Arithmetic {
            activations,
            is_deterministic: false,
        }
    }
}

/// A model on a device, with its KV cache.
pub struct GpuBackend {
    graphs: Graphs,
    setup: Setup,
    limits: Limits,
    under_way: UnderWay,
    /// Whether matrices are still to be copied as f16, when a step first has many rows: there is memory for it.
    wants_copies: bool,
}

impl GpuBackend {
    /// What a backend with these limits allocates.
    ///
    /// # Errors
    /// A model that the kernels cannot run.
    pub fn plan(model: &Model, limits: Limits) -> Result<MemoryPlan> {
        check_model(model)?;
        let config = &model.config;
        if let Some(experts) = &config.experts
            && limits.tokens() * experts.used > MAX_PAIRS
        {
            return Err(DeviceError::Unsupported(format!(
                "a step of {} tokens, each with {} experts, is too large; at most {} tokens",
                limits.tokens(),
                experts.used,
                MAX_PAIRS / experts.used
            )));
        }
        let mut plan = MemoryPlan::new();
        let ropes = config
            .ropes
            .iter()
            .map(|rope| RopeTable::bytes(rope, limits) as u64);
        plan.add_each("weights", GpuWeights::allocations(model));
        plan.add(
            "KV cache",
            limits.n_pages as u64 * cache::page_bytes(config) as u64,
        );
        plan.add_each("RoPE tables", ropes);
        if config.query_temperature.is_some() {
            let bytes = cache::query_factors_bytes(limits);
            plan.add("factors on queries", bytes as u64);
        }
        let inputs = Inputs::bytes(limits, model.vocab()).map(|bytes| bytes as u64);
        plan.add_each(
            "step inputs",
            inputs.into_iter().chain([under_way::MAILBOX_BYTES]),
        );
        workspace::plan(&mut plan, model, limits);
        plan.reserve("kernels and cuBLAS, when used", LOADED_LATER);
        let graphs = graphs::RESERVED as u64 * graphs::graph_bytes(config);
        plan.reserve("recorded steps", graphs);
        Ok(plan)
    }

    /// Checks the plan against the device's free memory, then uploads the weights and allocates the
    /// rest; `progress` hears of the bytes uploaded so far, `cancel` ends the upload.
    ///
    /// # Errors
    /// Too little memory, a model that the kernels cannot run, or a failed call.
    pub fn new(
        model: Arc<Model>,
        device: Arc<dyn Device>,
        limits: Limits,
        arithmetic: impl Into<Arithmetic>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<GpuBackend> {
        let (config, arithmetic) = (&model.config, arithmetic.into());
        let plan = Self::plan(&model, limits)?;
        let plan_of = |tokens: u64| {
            // The model was checked with the plan above.
            Self::plan(&model, limits.with_context(tokens as usize)).unwrap_or_default()
        };
        let cost = ContextCost {
            tokens: limits.context as u64,
            granularity: PAGE_TOKENS as u64,
            plan: &plan_of,
        };
        let memory = device.memory()?;
        plan.check(memory, cost)?;
        let mut with_copies = plan.clone();
        with_copies.add_each("unpacked matrices", GpuWeights::copies(&model));
        // Deterministic steps multiply straight from the blocks, however many rows they have.
        let wants_copies = !arithmetic.is_deterministic && with_copies.total() <= memory.free;

        let ropes = config.ropes.iter();
        let memory = Memory {
            weights: GpuWeights::upload(&model, &*device, cancel, progress)?,
            cache: KvCache::new(&*device, config, limits.n_pages)?,
            ropes: ropes
                .map(|rope| RopeTable::new(&*device, rope, limits))
                .collect::<Result<_>>()?,
            query_factors: config
                .query_temperature
                .map(|temperature| cache::query_factors(&*device, temperature, limits))
                .transpose()?,
            inputs: Inputs::new(&*device, limits, model.vocab(), arithmetic.is_deterministic)?,
            workspace: Workspace::new(&*device, &model, limits)?,
            mailbox: device.mailbox(under_way::MAILBOX_WORDS)?,
        };
        Ok(GpuBackend {
            graphs: Graphs::new(memory, graphs::graph_bytes(config)),
            setup: Setup {
                activations: arithmetic.activations,
                is_deterministic: arithmetic.is_deterministic,
                batches_in_q8: arithmetic.activations == ActivationPrecision::Q8
                    && !arithmetic.is_deterministic
                    && multiplies_in_q8(&model),
                launcher: Launcher::new(device),
                norm_scales: NormScales::of(&model),
                model,
            },
            limits,
            under_way: UnderWay::default(),
            wants_copies,
        })
    }

    /// What suits `model` unless asked otherwise. Below 256 MiB of weights decoding waits for launches rather than
    /// for multiplications: half precision costs SmolLM2 135M 8 % of its speed on an H100, and makes its
    /// distributions a thousand times as exact. From there on the multiplications count.
    pub fn default_activations(model: &Model) -> ActivationPrecision {
        const SMALL: u64 = 256 << 20;
        match GpuWeights::matrix_bytes(model) {
            ..SMALL => ActivationPrecision::F16,
            _ => ActivationPrecision::Q8,
        }
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        self.setup.launcher.device()
    }

    /// Bytes that an upload's progress counts up to.
    pub fn upload_bytes(model: &Model) -> u64 {
        GpuWeights::matrix_bytes(model)
    }

    /// All of a buffer of f32.
    fn read_floats(&self, buffer: &Buffer) -> Result<Vec<f32>, BackendError> {
        let mut values = vec![0f32; buffer.len() / 4];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        match self.device().download(bytes, buffer.all()) {
            Ok(()) => Ok(values),
            Err(error) => Err(BackendError::Device(Box::new(error))),
        }
    }
}

/// Checks what the kernels take for granted.
fn check_model(model: &Model) -> Result<()> {
    let config = &model.config;
    let unsupported = |what: String| Err(DeviceError::Unsupported(what));
    if !HEAD_DIMS.contains(&config.head_dim) {
        return unsupported(format!(
            "heads of {} elements have no attention kernel (there are {HEAD_DIMS:?})",
            config.head_dim
        ));
    }
    if let Some(experts) = &config.experts
        && experts.count > MAX_EXPERTS as usize
    {
        return unsupported(format!(
            "{} experts are more than the {MAX_EXPERTS} that the kernels choose among",
            experts.count
        ));
    }
    let of_stream = [
        scales::stream_epsilon(config),
        scales::stream_embedding_scale(config),
    ];
    if !of_stream.iter().all(|x| x.is_normal()) {
        return unsupported(format!(
            "the residual scale {} takes the residual stream out of the range of f32",
            config.residual_scale
        ));
    }
    for (name, elements) in [
        ("embedding", config.width),
        ("feed-forward", config.ffn_width),
        (
            "experts'",
            config.experts.map_or(0, |experts| experts.width),
        ),
    ] {
        if !elements.is_multiple_of(4) {
            return unsupported(format!(
                "the {name} length {elements} is not a multiple of 4, which the kernels need"
            ));
        }
    }
    Ok(())
}

impl Backend for GpuBackend {
    fn model(&self) -> &Arc<Model> {
        &self.setup.model
    }

    fn limits(&self) -> backend::Limits {
        backend::Limits {
            max_sequences: self.limits.sequences(),
            max_tokens: self.limits.tokens(),
            n_pages: self.limits.n_pages,
            max_context: self.limits.context,
        }
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        check_step(self.setup.model.vocab(), Backend::limits(self), rows)?;
        self.send(rows, trace)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        self.under_way.take(ticket, &*self.graphs.memory().mailbox)
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn description(&self) -> String {
        self.device().info().name.clone()
    }

    fn default_chunk(&self) -> usize {
        DEFAULT_CHUNK
    }

    fn activations(&self) -> Option<ActivationPrecision> {
        Some(match self.setup.is_deterministic {
            true => ActivationPrecision::F16,
            false => self.setup.activations,
        })
    }

    fn read_weight(&self, name: &str) -> Option<Result<Vec<u16>, BackendError>> {
        let matrix = self.graphs.memory().weights.matrix(name)?;
        let mut unheard = NoTrace;
        let trace = DeviceTracer::new(self.device(), &mut unheard, 0);
        let bits = self.pass(&trace).unpacked_matrix(matrix);
        Some(bits.map_err(|error| BackendError::Device(Box::new(error))))
    }

    fn read_vector(&self, name: &str) -> Option<Result<Vec<f32>, BackendError>> {
        Some(self.read_floats(self.graphs.memory().weights.vector(name)?))
    }

    fn read_rope(&self, index: usize) -> Option<Result<Vec<f32>, BackendError>> {
        Some(self.read_floats(&self.graphs.memory().ropes.get(index)?.table))
    }

    fn read_query_factors(&self) -> Option<Result<Vec<f32>, BackendError>> {
        Some(self.read_floats(self.graphs.memory().query_factors.as_ref()?))
    }

    fn instrumented(&self) -> Option<&dyn Instrumented> {
        Some(self)
    }
}

impl Instrumented for GpuBackend {
    fn note_launches(&self) {
        self.setup.launcher.note();
    }

    fn noted_launches(&self) -> Vec<NotedLaunch> {
        self.setup.launcher.noted()
    }
}
