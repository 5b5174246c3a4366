//! The forms of `hyperion verify` that work with files: traces and texts.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, ensure};

use super::{Opened, VerifyArgs, write_report};
use crate::backend::{ActivationPrecision, Ask};
use crate::tokenizer::EncodeOptions;
use crate::verify::against::{compare, forward};
use crate::verify::kl;
use crate::verify::trace_file::{self, TraceFile};

/// Holds the backend's tensors against those of a trace.
pub fn against(args: &VerifyArgs, opened: &Opened, file: &Path) -> anyhow::Result<bool> {
    let trace = TraceFile::read(file)?;
    let vocab = opened.model.vocab();
    let stranger = trace.tokens.iter().find(|&&token| token as usize >= vocab);
    ensure!(
        stranger.is_none(),
        "{}: token {} is outside the model's vocabulary of {vocab}",
        file.display(),
        stranger.copied().unwrap_or_default()
    );
    let (mut subject, rounding) = opened.subject(args, trace.tokens.len())?;
    // From real and random models of up to 30 blocks; llama.cpp's own CPU code takes GELU from an
    // f16 table, which alone costs 1e-3.
    let (bound, why) = match rounding {
        None => (2e-3, "f32, whose errors pile up"),
        Some(ActivationPrecision::F16) => (2e-2, "f16 activations, whose errors pile up"),
        Some(ActivationPrecision::Q8) => (1e-1, "8-bit activations, whose errors pile up"),
    };
    let bound = args.tolerance.unwrap_or(bound);
    let name = file.display().to_string();
    let comparison = compare(&mut *subject, &trace, &name, bound, why)?;
    ensure!(
        comparison.report.rows().next().is_some(),
        "{name} has no tensor that the backend reports"
    );
    write_report(args, &comparison.report)?;
    if !comparison.unknown.is_empty() {
        eprintln!(
            "not reported by the backend: {}",
            comparison.unknown.join(", ")
        );
    }
    Ok(comparison.report.passed())
}

/// Writes the backend's own trace of the prompt.
pub fn dump(args: &VerifyArgs, opened: &Opened, file: &Path) -> anyhow::Result<bool> {
    let tokens = opened.prompt(args)?;
    let (mut subject, _) = opened.subject(args, tokens.len())?;
    // The logits are written under their own name.
    let forward = forward(&mut *subject, &tokens, Ask::ALL_LOGITS, |name| {
        name.base != "result_output"
    })?;
    trace_file::write(file, &tokens, &forward.tensors, &forward.logits)?;
    eprintln!(
        "{}: {} tensors of {} tokens",
        file.display(),
        forward.tensors.len() + 1,
        tokens.len()
    );
    Ok(true)
}

/// Compares next-token distributions over a text.
pub fn kl(args: &VerifyArgs, opened: &Opened, file: &Path) -> anyhow::Result<bool> {
    let in_file = || format!("reading the text {}", file.display());
    let text = std::fs::read_to_string(file).with_context(in_file)?;
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let mut tokens = opened.tokenizer.encode(&text, options)?;
    tokens.truncate(args.kl_tokens);
    ensure!(!tokens.is_empty(), "{} has no tokens", file.display());
    let chunk = args.kl_chunk.min(tokens.len());
    let (mut subject, rounding) = opened.subject(args, chunk)?;
    let mut reference = opened.reference(chunk);
    let mut tensors = opened.gguf.tensors().iter();
    let quantized = tensors.any(|tensor| tensor.ty().block_elements() > 1);
    let bound = args.kl_bound.unwrap_or(match rounding {
        None => 1e-6,
        Some(activations) if activations == ActivationPrecision::F16 || !quantized => 1e-4,
        // What llama.cpp's CPU code, which quantizes activations alike, measures on Gemma 3 270m.
        Some(_) => 1.45e-2,
    });
    let bar = indicatif::ProgressBar::new(tokens.len() as u64);
    let step = args.run.chunk(&*subject);
    let collector = kl::collect(
        &mut *subject,
        &mut reference,
        &tokens,
        chunk,
        step,
        &mut |n| {
            bar.inc(n as u64);
        },
    );
    bar.finish_and_clear();
    let divergence = collector?.finish().context("no positions to compare")?;
    // Not `mean > bound`: NaN must fail.
    let passed = divergence.mean <= bound;
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::json!({
            "passed": passed,
            "bound": bound,
            "chunk": chunk,
            "divergence": divergence,
        });
        serde_json::to_writer_pretty(&mut out, &value).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "{} positions in chunks of {chunk}: KL divergence mean {:.2e} (bound {bound:.1e}), 99th \
             percentile {:.2e}, top-1 agreement {:.4}",
            divergence.positions, divergence.mean, divergence.p99, divergence.top1_agreement
        )?;
    }
    Ok(passed)
}
