//! Opening the backend that `--device` names.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;

use super::interrupt;
use super::run_args::RunArgs;
use crate::backend::{Backend, PAGE_TOKENS};
use crate::cpu::CpuBackend;
use crate::device::{Device, choice};
use crate::gpu::{GpuBackend, Limits};
use crate::model::Model;
use crate::ptx;

/// Runs `model` where `args` say, with a KV cache of `n_pages` pages.
pub fn open_backend(
    model: Arc<Model>,
    args: &RunArgs,
    n_pages: usize,
) -> anyhow::Result<Box<dyn Backend>> {
    let device = open_device(args)?;
    backend_on(device, model, args, n_pages)
}

/// Opens the device that `args` name; none is the CPU.
pub fn open_device(args: &RunArgs) -> anyhow::Result<Option<Arc<dyn Device>>> {
    let opened = choice::open(args.device, &ptx::embedded())?;
    if let (true, Some(reason)) = (args.verbose, opened.reason) {
        eprintln!("on the CPU: {reason}");
    }
    Ok(opened.device)
}

/// Whether a KV cache of `n_pages` pages fits the memory of `device` beside the model.
pub fn fits(
    device: &dyn Device,
    model: &Model,
    args: &RunArgs,
    n_pages: usize,
) -> anyhow::Result<bool> {
    let plan = GpuBackend::plan(model, limits(args, n_pages))?;
    Ok(plan.total() <= device.memory()?.free)
}

fn limits(args: &RunArgs, n_pages: usize) -> Limits {
    let context = n_pages * PAGE_TOKENS;
    Limits {
        context,
        n_pages,
        max_tokens: args.most_chunk().min(context),
    }
}

/// [`open_backend`] on an open device.
pub fn backend_on(
    device: Option<Arc<dyn Device>>,
    model: Arc<Model>,
    args: &RunArgs,
    n_pages: usize,
) -> anyhow::Result<Box<dyn Backend>> {
    let Some(device) = device else {
        let backend = CpuBackend::new(model, n_pages).interrupted_by(interrupt::flag()?);
        return Ok(Box::new(backend));
    };
    let limits = limits(args, n_pages);
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
        activations,
        interrupt::flag()?,
        &mut |bytes| bar.set_position(bytes),
    );
    bar.finish_and_clear();
    Ok(Box::new(backend.context("preparing the GPU")?))
}
