//! `hyperion inspect` for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::statistics::Statistics;
use super::{Use, row_major};
use crate::gguf::{Array, Gguf, Tensor, Value};

/// Elements of an array that are shown.
const ARRAY_HEAD: usize = 5;
/// Characters of a string that are shown.
const STRING_HEAD: usize = 60;
/// Values in a line.
const LINE: usize = 6;

/// Metadata, tensors, totals by type, and what the model does not use.
pub(super) fn write_file(out: &mut impl Write, gguf: &Gguf, used: &Use) -> io::Result<()> {
    for part in gguf.parts() {
        writeln!(out, "{}", part.display())?;
    }
    writeln!(
        out,
        "GGUF version {}, {} metadata entries, {} tensors\n",
        gguf.version(),
        gguf.metadata().len(),
        gguf.n_tensors()
    )?;
    let rows = gguf.metadata().iter().map(|(key, value)| {
        let ty = match value {
            Value::Array(array) => format!("{}[{}]", array.element_type(), array.len()),
            value => value.ty().to_string(),
        };
        let damaged = match gguf.metadata().damage(key) {
            Some(_) => " (not UTF-8)",
            None => "",
        };
        [escaped(key), ty, describe(value) + damaged]
    });
    write_table(out, ["METADATA", "TYPE", "VALUE"], "lll", rows)?;
    if gguf.n_tensors() == 0 {
        return Ok(());
    }
    writeln!(out)?;
    let unread = gguf.unread_tensors().iter().map(|tensor| {
        [
            escaped(&tensor.name),
            format!("{} ({})", tensor.type_name, tensor.type_id),
            format!("{:?}", tensor.dims),
            format!("{:?}", row_major(&tensor.dims)),
            "?".to_owned(),
            "?".to_owned(),
        ]
    });
    let rows = gguf.tensors().iter().map(|tensor| {
        [
            escaped(tensor.name()),
            tensor.ty().to_string(),
            format!("{:?}", tensor.dims()),
            format!("{:?}", row_major(tensor.dims())),
            tensor.offset().to_string(),
            tensor.bytes().len().to_string(),
        ]
    });
    write_table(
        out,
        [
            "TENSOR",
            "TYPE",
            "GGUF SHAPE",
            "[OUT, IN]",
            "OFFSET",
            "BYTES",
        ],
        "llllrr",
        rows.chain(unread),
    )?;
    writeln!(out)?;
    write_totals(out, gguf.tensors())?;
    match used {
        Use::Nothing => Ok(()),
        Use::Runs(unused) if unused.is_empty() => Ok(()),
        Use::Runs(unused) => {
            writeln!(out)?;
            let rows = unused
                .iter()
                .map(|unused| [escaped(&unused.name), unused.why.to_owned()]);
            write_table(out, ["NOT USED", "WHY"], "ll", rows)
        }
        Use::Fails(problem) => writeln!(out, "\nhyperion does not run this file: {problem}"),
    }
}

/// A name of the file's, whose control characters might drive the terminal.
fn escaped(name: &str) -> String {
    name.escape_debug().to_string()
}

fn write_totals(out: &mut impl Write, tensors: &[Tensor]) -> io::Result<()> {
    let mut totals = BTreeMap::<_, [usize; 3]>::new();
    for tensor in tensors {
        let total = totals.entry(tensor.ty()).or_default();
        // Elements of different tensors may be the same bytes, so that sums can exceed any file.
        for (sum, more) in total
            .iter_mut()
            .zip([1, tensor.n_elements(), tensor.bytes().len()])
        {
            *sum = sum.saturating_add(more);
        }
    }
    let row = |ty: &str, [tensors, elements, bytes]: [usize; 3]| {
        let bits = bytes as f64 * 8.0 / elements as f64;
        [
            ty.to_owned(),
            tensors.to_string(),
            elements.to_string(),
            bytes.to_string(),
            format!("{bits:.2}"),
        ]
    };
    let sum = totals.values().fold([0usize; 3], |sum, total| {
        [0, 1, 2].map(|i| sum[i].saturating_add(total[i]))
    });
    let rows = totals.iter().map(|(ty, total)| row(ty.name(), *total));
    let rows = rows.chain([row("total", sum)]);
    write_table(
        out,
        ["TYPE", "TENSORS", "ELEMENTS", "BYTES", "BITS EACH"],
        "lrrrr",
        rows,
    )
}

/// One tensor: description, statistics, values.
pub(super) fn write_tensor(
    out: &mut impl Write,
    tensor: &Tensor,
    values: &[f32],
    statistics: &Statistics,
) -> io::Result<()> {
    writeln!(
        out,
        "{}: {}, GGUF shape {:?}, row-major {:?}, offset {}, {} bytes",
        tensor.name(),
        tensor.ty(),
        tensor.dims(),
        row_major(tensor.dims()),
        tensor.offset(),
        tensor.bytes().len()
    )?;
    let summary = statistics.summary();
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6e}"));
    writeln!(
        out,
        "min {}, max {}, mean {}, std {}, {} of {} not finite",
        show(summary.min.map(f64::from)),
        show(summary.max.map(f64::from)),
        show(summary.mean),
        show(summary.std),
        summary.non_finite,
        tensor.n_elements()
    )?;
    for (i, line) in values.chunks(LINE).enumerate() {
        write!(out, "{:>8}", i * LINE)?;
        for value in line {
            write!(out, " {value:>14.6e}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A value in one line, shortened.
fn describe(value: &Value) -> String {
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => describe_string(v),
        Value::Array(array) => describe_array(array),
    }
}

/// Quoted: control characters, which might drive the terminal, are escaped.
fn describe_string(string: &str) -> String {
    match string.char_indices().nth(STRING_HEAD) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &string[..end], string.len()),
        None => format!("{string:?}"),
    }
}

fn describe_array(array: &Array) -> String {
    let head = (0..ARRAY_HEAD)
        .map_while(|i| array.get(i))
        .map(|value| match value {
            // Not shown in turn: five of five of five … would be a long line.
            Value::Array(inner) => format!("{}[{}]", inner.element_type(), inner.len()),
            value => describe(&value),
        });
    let mut parts: Vec<String> = head.collect();
    if array.len() > ARRAY_HEAD {
        parts.push("…".to_owned());
    }
    format!("[{}]", parts.join(", "))
}

/// A table whose columns are as wide as their widest cell; `align` holds `l` or `r` for each.
fn write_table<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    align: &str,
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = vec![head.map(str::to_owned)];
    table.extend(rows);
    let mut widths = [0; N];
    for row in &table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &table {
        let mut line = String::new();
        for ((cell, width), align) in row.iter().zip(widths).zip(align.chars()) {
            let cell = match align {
                'r' => format!("{cell:>width$}"),
                _ => format!("{cell:width$}"),
            };
            line.push_str(&cell);
            line.push_str("  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
