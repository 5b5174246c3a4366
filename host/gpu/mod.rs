//! A model on a GPU, real or simulated.
//!
//! A step of one new token for each sequence is recorded in a graph. With a few sequences
//! ([`DECODE_SEQUENCES`]) it takes the matrix-vector kernels (`decode`). With more of them
//! (`decode_batch`), and in a step of any tokens (`prefill`), products are in f16 on tensor cores:
//! quantized matrices straight from their blocks (`matmul`) with few tokens, decoded and with cuBLAS with
//! more (`products`). All share the KV cache and the workspace.

mod ahead;
mod blocks;
mod cache;
mod decode;
mod decode_attention;
mod decode_batch;
mod inputs;
mod launcher;
mod logits;
mod matmul;
mod matvec;
mod operations;
mod prefill;
mod products;
mod trace;
mod weights;
mod workspace;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::backend::{
    Activations, Backend, BackendError, NotedLaunch, Output, PAGE_TOKENS, SequenceStep, TraceSink,
    check_step,
};
use crate::device::plan::{ContextCost, MemoryPlan};
use crate::device::{Device, DeviceError, Graph, Profiler, Result};
use crate::model::Model;
use ahead::Ahead;
use cache::{KvCache, RopeTable};
use decode::GraphKey;
use inputs::Inputs;
use launcher::Launcher;
use matvec::Spread;
use trace::DeviceTracer;
use weights::GpuWeights;
use workspace::Workspace;
pub use workspace::{DECODE_SEQUENCES, DEFAULT_CHUNK, Limits, MAX_SEQUENCES};

/// Head sizes that attention has kernels for.
const HEAD_DIMS: [usize; 6] = [32, 64, 80, 96, 128, 256];

/// A model on a device, with its KV cache.
pub struct GpuBackend {
    /// Dropped first: replays need everything else.
    graphs: HashMap<GraphKey, Option<Box<dyn Graph>>>,
    model: Arc<Model>,
    launcher: Launcher,
    activations: Activations,
    limits: Limits,
    weights: GpuWeights,
    cache: KvCache,
    ropes: Vec<RopeTable>,
    inputs: Inputs,
    ahead: Ahead,
    workspace: Workspace,
    spread: Spread,
}

impl GpuBackend {
    /// What a backend with these limits allocates.
    ///
    /// # Errors
    /// A model that the kernels cannot run.
    pub fn plan(model: &Model, limits: Limits) -> Result<MemoryPlan> {
        check_model(model)?;
        let config = &model.config;
        let mut plan = MemoryPlan::new();
        let weights = GpuWeights::matrix_bytes(model) + GpuWeights::vector_bytes(model);
        let ropes = config
            .ropes
            .iter()
            .map(|rope| RopeTable::bytes(rope, limits) as u64);
        plan.add("weights", weights);
        plan.add(
            "KV cache",
            limits.n_pages as u64 * cache::page_bytes(config) as u64,
        );
        plan.add("RoPE tables", ropes.sum());
        plan.add("step inputs", Inputs::bytes(limits) as u64);
        workspace::plan(&mut plan, model, limits);
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
        activations: Activations,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<GpuBackend> {
        let config = &model.config;
        let plan = Self::plan(&model, limits)?;
        let per_page = limits.n_pages as u64 * cache::page_bytes(config) as u64;
        let cost = ContextCost {
            tokens: limits.context as u64,
            bytes_per_token: per_page / (limits.context as u64).max(1),
            granularity: PAGE_TOKENS as u64,
        };
        plan.check(device.memory()?, cost)?;

        let weights = GpuWeights::upload(&model, &*device, cancel, progress)?;
        let ropes = config.ropes.iter();
        Ok(GpuBackend {
            graphs: HashMap::new(),
            activations,
            limits,
            weights,
            cache: KvCache::new(&*device, config, limits.n_pages)?,
            ropes: ropes
                .map(|rope| RopeTable::new(&*device, rope, limits))
                .collect::<Result<_>>()?,
            inputs: Inputs::new(&*device, limits)?,
            ahead: Ahead::new(&*device)?,
            workspace: Workspace::new(&*device, &model, limits)?,
            launcher: Launcher::new(device),
            spread: Spread::default(),
            model,
        })
    }

    /// What suits `model` unless asked otherwise. Below 256 MiB of weights decoding waits for launches rather than
    /// for multiplications: half precision costs SmolLM2 135M 8 % of its speed on an H100, and makes its
    /// distributions a thousand times as exact. From there on the multiplications count.
    pub fn default_activations(model: &Model) -> Activations {
        const SMALL: u64 = 256 << 20;
        match GpuWeights::matrix_bytes(model) {
            ..SMALL => Activations::F16,
            _ => Activations::Q8,
        }
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.launcher.device
    }

    /// Bytes that an upload's progress counts up to.
    pub fn upload_bytes(model: &Model) -> u64 {
        GpuWeights::matrix_bytes(model)
    }

    fn run(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Vec<Output>> {
        let n_tokens: usize = sequences.iter().map(|step| step.tokens.len()).sum();
        let most_tokens = self.limits.max_tokens.max(MAX_SEQUENCES);
        if n_tokens > most_tokens || sequences.len() > MAX_SEQUENCES {
            return Err(DeviceError::Unsupported(format!(
                "a step of {n_tokens} tokens of {} sequences is over this backend's {most_tokens} and \
                 {MAX_SEQUENCES}",
                sequences.len()
            )));
        }
        let device = self.launcher.device.clone();
        let mut trace = DeviceTracer::new(&*device, trace, n_tokens);
        match sequences.iter().all(|step| step.tokens.len() == 1) {
            true => self.decode(sequences, &mut trace),
            false => {
                self.ahead.forget();
                self.inputs.upload(&*device, sequences)?;
                self.prefill(sequences, &mut trace)
            }
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
    for (name, elements) in [
        ("embedding", config.width),
        ("feed-forward", config.ffn_width),
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
        &self.model
    }

    fn n_pages(&self) -> usize {
        self.limits.n_pages
    }

    fn max_context(&self) -> usize {
        self.limits.context
    }

    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Vec<Output>, BackendError> {
        let vocab = self.model.vocab();
        check_step(&self.model.config, vocab, self.limits.n_pages, sequences)?;
        self.run(sequences, trace)
            .map_err(|error| BackendError::Device(Box::new(error)))
    }

    fn description(&self) -> String {
        self.launcher.device.info().name.clone()
    }

    fn default_chunk(&self) -> usize {
        DEFAULT_CHUNK
    }

    fn activations(&self) -> Option<Activations> {
        Some(self.activations)
    }

    fn draws(&self) -> bool {
        // The kernel draws from the logits as they are.
        self.model.config.logit_softcap.is_none()
    }

    fn read_weight(&self, name: &str) -> Option<Result<Vec<u16>, BackendError>> {
        let matrix = self.weights.matrix(name)?;
        let bits = self.decoded_matrix(matrix);
        Some(bits.map_err(|error| BackendError::Device(Box::new(error))))
    }

    fn copy_bandwidth(&self) -> Option<f64> {
        let device = self.device();
        let measured = (!device.info().is_simulated).then(|| crate::device::copy_bandwidth(device));
        measured?.ok()
    }

    fn profiler(&self) -> Result<Box<dyn Profiler>, BackendError> {
        let profiler = self.device().profiler();
        profiler.map_err(|error| BackendError::Device(Box::new(error)))
    }

    fn note_launches(&self) {
        self.launcher.note();
    }

    fn noted_launches(&self) -> Vec<NotedLaunch> {
        self.launcher.noted()
    }
}
