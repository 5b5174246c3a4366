//! Opening the backend that `--device` names.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;

use super::interrupt;
use super::session::RunArgs;
use crate::backend::{Backend, PAGE_TOKENS};
use crate::cpu::CpuBackend;
use crate::gpu::choice;
use crate::gpu_backend::{GpuBackend, Limits};
use crate::model::Model;

/// Most sequences that an engine is asked to run side by side.
const SEQUENCES: usize = 64;

/// Runs `model` where `args` say, with a KV cache of `n_pages` pages.
pub fn open_backend(
    model: Arc<Model>,
    args: &RunArgs,
    n_pages: usize,
) -> anyhow::Result<Box<dyn Backend>> {
    let opened = choice::open(args.device, &choice::embedded())?;
    let Some(device) = opened.device else {
        if let (true, Some(reason)) = (args.verbose, opened.reason) {
            eprintln!("on the CPU: {reason}");
        }
        return Ok(Box::new(CpuBackend::new(model, n_pages)));
    };
    let context = n_pages * PAGE_TOKENS;
    let limits = Limits {
        context,
        n_pages,
        max_tokens: args.most_chunk().min(context).max(SEQUENCES),
    };
    let plan = GpuBackend::plan(&model, limits)?;
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
        args.activations,
        interrupt::flag()?,
        &mut |bytes| bar.set_position(bytes),
    );
    bar.finish_and_clear();
    Ok(Box::new(backend.context("preparing the GPU")?))
}
