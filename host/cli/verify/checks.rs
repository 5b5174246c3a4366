//! `--gemm` and `--weights`.

use std::io::{self, Write};

use anyhow::{Context, bail};

use super::{Opened, VerifyArgs, observed};
use crate::escape::escape;
use crate::verify::gemm::{CheckedProduct, Skipped, check_step};
use crate::verify::weights::{self, CheckedWeight};

/// Recomputes matrix products by hand.
pub fn gemm(args: &VerifyArgs, opened: &Opened, n_rows: usize) -> anyhow::Result<bool> {
    let (mut checked, mut skipped): (Vec<CheckedProduct>, Vec<Skipped>) = Default::default();
    let mut index = 0;
    observed(args, opened, &mut |step, bounds| {
        let (more, none) = check_step(&opened.model, bounds, step, index, n_rows);
        checked.extend(more);
        skipped.extend(none);
        index += 1;
    })?;
    if checked.is_empty() {
        bail!("the backend reports no product together with its input");
    }
    let passed = checked.iter().all(|product| product.passed);
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::json!({
            "passed": passed,
            "products": checked,
            "skipped": skipped,
        });
        serde_json::to_writer_pretty(&mut out, &value).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(passed);
    }
    for product in &checked {
        write_product(&mut out, product)?;
    }
    let fused = skipped.len();
    if fused > 0 {
        let first = &skipped[0];
        writeln!(
            out,
            "{fused} products lie inside fused operations (the first is {}: {} is not reported)",
            first.output, first.missing
        )?;
    }
    match checked.iter().find(|product| !product.passed) {
        None => writeln!(out, "passed: {} products", checked.len())?,
        Some(product) => {
            let (row, token, found, expected) = product.worst;
            writeln!(
                out,
                "FAILED: the first product out of bounds is {}, of {}; row {row} of the matrix times \
                 token {token} is {expected:.6e} by hand and {found:.6e} on the backend",
                product.output, product.tensor
            )?;
        }
    }
    Ok(passed)
}

fn write_product(out: &mut impl Write, product: &CheckedProduct) -> io::Result<()> {
    let [x, w, y] = product.shapes;
    writeln!(
        out,
        "{:<16} step {:<2} {:<28} {:<6} x {x:?} W {w:?} y {y:?}\n{:<24} in cuBLAS's terms: {}\n\
         {:<24} {} rows by hand: relative error {:.1e}, bound {:.1e}{}",
        product.output,
        product.step,
        product.tensor,
        product.ty,
        "",
        product.call,
        "",
        product.rows.len(),
        product.relative,
        product.bound,
        if product.passed {
            ""
        } else {
            "  OUT OF BOUNDS"
        }
    )
}

/// Compares weights bit for bit; `name` is empty for all of them.
pub fn weights(args: &VerifyArgs, opened: &Opened, name: &str) -> anyhow::Result<bool> {
    let (subject, _) = opened.subject(args, 1)?;
    let tensors = match name {
        "" => opened.gguf.tensors().iter().collect(),
        name => vec![opened.gguf.require(name)?],
    };
    let mut checked: Vec<CheckedWeight> = Vec::new();
    let mut not_held = Vec::new();
    let is_rope_factor =
        |name: &str| name == "rope_freqs.weight" || name.starts_with("rope_factors_");
    if name.is_empty() || is_rope_factor(name) {
        for index in 0..opened.model.config.ropes.len() {
            let table = weights::check_rope(&*subject, index, args.n);
            checked.extend(table.transpose().context("reading a RoPE table back")?);
        }
    }
    let has_ropes = !checked.is_empty();
    if name.is_empty() {
        let factors = weights::check_query_factors(&*subject, args.n);
        checked.extend(
            factors
                .transpose()
                .context("reading factors on queries back")?,
        );
    }
    for tensor in tensors {
        match weights::check(&*subject, tensor, args.n) {
            Some(result) => {
                checked.push(result.with_context(|| format!("reading {} back", tensor.name()))?);
            }
            // Part of the tables above.
            None if has_ropes && is_rope_factor(tensor.name()) => {}
            None => not_held.push(tensor.name()),
        }
    }
    if checked.is_empty() {
        bail!(
            "{} holds no copy of {}: it reads the file in place; choose a GPU with --device",
            subject.description(),
            if name.is_empty() { "any tensor" } else { name }
        );
    }
    let passed = checked.iter().all(|tensor| tensor.different == 0);
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::json!({
            "passed": passed,
            "tensors": checked,
            "not_held": not_held,
        });
        serde_json::to_writer_pretty(&mut out, &value).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(passed);
    }
    for tensor in &checked {
        write_weight(&mut out, tensor)?;
    }
    if !not_held.is_empty() {
        writeln!(
            out,
            "not held on the device: {}",
            escape(&not_held.join(", "))
        )?;
    }
    let n_bad = checked.iter().filter(|tensor| tensor.different > 0).count();
    match n_bad {
        0 => writeln!(out, "passed: {} tensors, bit for bit", checked.len())?,
        n => writeln!(out, "FAILED: {n} of {} tensors differ", checked.len())?,
    }
    Ok(passed)
}

fn write_weight(out: &mut impl Write, tensor: &CheckedWeight) -> io::Result<()> {
    let verdict = match tensor.first {
        None => "equal".to_owned(),
        Some(first) => format!("{} differ, the first is {first}", tensor.different),
    };
    writeln!(
        out,
        "{:<32} {:<6} {:>11} elements  {verdict}",
        escape(&tensor.tensor),
        tensor.ty,
        tensor.elements
    )?;
    if !tensor.values.is_empty() {
        writeln!(out, "{:>12} {:>14} {:>14}", "element", "device", "file")?;
    }
    for (index, device, file) in &tensor.values {
        let mark = if device.to_bits() == file.to_bits() {
            ""
        } else {
            "  <"
        };
        writeln!(out, "{index:>12} {device:>14.7e} {file:>14.7e}{mark}")?;
    }
    Ok(())
}
