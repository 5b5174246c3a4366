//! What the launches of one step borrow.

use std::sync::Arc;

use kernels_gpu::abi::DevicePtr;

use super::cache::{KvCache, RopeTable};
use super::graphs::Memory;
use super::inputs::Inputs;
use super::launcher::Launcher;
use super::ops::matvec::Spread;
use super::scales::NormScales;
use super::trace::DeviceTracer;
use super::weights::GpuWeights;
use super::workspace::Workspace;
use crate::backend::{ActivationPrecision, Row};
use crate::device::{Buffer, Result};
use crate::model::{Config, Model};

/// What no step of a backend changes, except for its memory.
pub struct Setup {
    /// The model.
    pub model: Arc<Model>,
    /// The device and its kernels.
    pub launcher: Launcher,
    /// What vectors are rounded to.
    pub activations: ActivationPrecision,
    /// What outputs of norms are divided by.
    pub norm_scales: NormScales,
    /// Whether a token's values must not depend on the step that it is in.
    pub is_deterministic: bool,
    /// Whether steps of some sequences multiply in 8 bits.
    pub batches_in_q8: bool,
}

/// One step on its way to the device.
pub struct Pass<'a> {
    pub model: &'a Model,
    pub config: &'a Config,
    pub launcher: &'a Launcher,
    pub activations: ActivationPrecision,
    pub norm_scales: &'a NormScales,
    pub is_deterministic: bool,
    pub batches_in_q8: bool,
    pub weights: &'a GpuWeights,
    pub cache: &'a KvCache,
    pub ropes: &'a [RopeTable],
    pub query_factors: Option<&'a Buffer>,
    pub inputs: &'a Inputs,
    pub workspace: &'a Workspace,
    /// Where argmax leaves tokens for the host.
    pub posted: DevicePtr<u32>,
    pub trace: &'a DeviceTracer<'a>,
    pub spread: Spread,
}

impl<'a> Pass<'a> {
    /// A step in `memory`, reported to `trace`.
    pub fn new(setup: &'a Setup, memory: &'a Memory, trace: &'a DeviceTracer<'a>) -> Pass<'a> {
        Pass {
            model: &setup.model,
            config: &setup.model.config,
            launcher: &setup.launcher,
            activations: setup.activations,
            norm_scales: &setup.norm_scales,
            is_deterministic: setup.is_deterministic,
            batches_in_q8: setup.batches_in_q8,
            weights: &memory.weights,
            cache: &memory.cache,
            ropes: &memory.ropes,
            query_factors: memory.query_factors.as_ref(),
            inputs: &memory.inputs,
            workspace: &memory.workspace,
            posted: DevicePtr::from_address(memory.mailbox.addr()),
            trace,
            spread: Spread::default(),
        }
    }

    /// Reports the residual stream `x` as `name`.
    pub fn trace_stream(&self, name: &'static str, x: &Buffer) -> Result<()> {
        let scale = self.config.residual_scale;
        self.trace.residual(name, self.config.width, x, scale)
    }

    /// Reports the residual stream `x` as `sum`, and what was last added to it as `addend`.
    pub fn trace_sum(&self, addend: &'static str, sum: &'static str, x: &Buffer) -> Result<()> {
        let scale = self.config.residual_scale;
        let width = self.config.width;
        self.trace.residual_and_addend(addend, sum, width, x, scale)
    }

    /// Reports keys and values from where the kernels put them in the cache, so that a wrong page
    /// shows.
    pub fn trace_cache(&self, layer: usize, rows: &[Row<'_>]) -> Result<()> {
        if !self.trace.wants("Kcur") {
            return Ok(());
        }
        let config = self.config;
        let mut keys = Vec::new();
        for row in rows {
            for position in row.start..row.end() {
                let page_tokens = crate::backend::PAGE_TOKENS;
                let place = (row.pages[position / page_tokens], position % page_tokens);
                let device = self.launcher.device();
                let heads = 0..config.n_kv_heads;
                keys.extend(
                    self.cache
                        .read_head(device, layer, place, heads, config.head_dim)?,
                );
            }
        }
        self.trace.f16_values("Kcur", config.kv_width(), &keys);
        Ok(())
    }
}
