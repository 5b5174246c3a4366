//! Opening the backend that `--device` names.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;

use super::interrupt;
use super::run_args::RunArgs;
use crate::backend::{ActivationPrecision, Backend, PAGE_TOKENS};
use crate::cpu::CpuBackend;
use crate::device::{Device, choice};
use crate::gpu::{Arithmetic, GpuBackend, Limits};
use crate::model::Model;
use crate::ptx;

/// What a backend is to have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Tokens of a sequence.
    pub context: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Pages of the KV cache.
    pub n_pages: usize,
    /// Drafts that a sequence may have in a step.
    pub drafts: usize,
}

impl Room {
    /// For `sequences` sequences of `context` tokens each.
    pub fn new(context: usize, sequences: usize) -> Room {
        Room {
            context,
            sequences,
            n_pages: context.div_ceil(PAGE_TOKENS) * sequences,
            drafts: 0,
        }
    }
}

/// Opens the device that `args` name; none is the CPU.
pub fn open_device(args: &RunArgs) -> anyhow::Result<Option<Arc<dyn Device>>> {
    let opened = choice::open(args.device, &ptx::embedded())?;
    if let (true, Some(reason)) = (args.verbose, opened.reason) {
        eprintln!("on the CPU: {reason}");
    }
    Ok(opened.device)
}

/// Whether `room` fits the memory of `device` beside the model.
pub fn fits(
    device: &dyn Device,
    model: &Model,
    args: &RunArgs,
    room: Room,
) -> anyhow::Result<bool> {
    let plan = GpuBackend::plan(model, limits(args, room))?;
    Ok(plan.total() <= device.memory()?.free)
}

fn limits(args: &RunArgs, room: Room) -> Limits {
    // Whole pages: what a sequence could hold anyway.
    let context = room.context.next_multiple_of(PAGE_TOKENS);
    Limits {
        context,
        n_pages: room.n_pages,
        max_tokens: args.most_chunk().min(room.n_pages * PAGE_TOKENS),
        max_sequences: room.sequences.max(1 + room.drafts),
    }
}

/// Runs `model` on an open device as `args` say, with `room`.
pub fn backend_on(
    device: Option<Arc<dyn Device>>,
    model: Arc<Model>,
    args: &RunArgs,
    room: Room,
) -> anyhow::Result<Box<dyn Backend>> {
    let model = model.for_context(room.context);
    let Some(device) = device else {
        let activations = args.activations.map(ActivationPrecision::from);
        let backend = match activations.unwrap_or(ActivationPrecision::Q8) {
            ActivationPrecision::Q8 => CpuBackend::fast(model, room.n_pages),
            ActivationPrecision::F16 => CpuBackend::new(model, room.n_pages),
        };
        return Ok(Box::new(backend.interrupted_by(interrupt::flag()?)));
    };
    let limits = limits(args, room);
    let plan = GpuBackend::plan(&model, limits)?;
    let suiting = || GpuBackend::default_activations(&model);
    let activations = args.activations.map_or_else(suiting, Into::into);
    if args.verbose {
        eprint!("{}\n{plan}", device.info());
    }
    let bar = match std::io::stderr().is_terminal() {
        true => model_cache::byte_bar("uploading", GpuBackend::upload_bytes(&model)),
        false => indicatif::ProgressBar::hidden(),
    };
    let backend = GpuBackend::new(
        model,
        device,
        limits,
        Arithmetic {
            activations,
            is_deterministic: args.deterministic,
        },
        interrupt::flag()?,
        &mut |bytes| bar.set_position(bytes),
    );
    bar.finish_and_clear();
    Ok(Box::new(backend.context("preparing the GPU")?))
}
