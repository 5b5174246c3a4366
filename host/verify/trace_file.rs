//! Traces as safetensors files: `tokens` I32 `[n]`, tensors F32 `[n, elements]` under llama.cpp's
//! names, `logits` `[n, vocab]` or `logits_last` `[vocab]`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::backend::RecordedTensor;

/// A trace that was read from a file.
#[derive(Debug, Default)]
pub struct TraceFile {
    /// The input.
    pub tokens: Vec<u32>,
    /// Every F32 tensor by its name.
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl TraceFile {
    /// Reads `path`.
    pub fn read(path: &Path) -> anyhow::Result<TraceFile> {
        let in_file = || format!("reading the trace {}", path.display());
        let bytes = std::fs::read(path).with_context(in_file)?;
        TraceFile::parse(&bytes).with_context(in_file)
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<TraceFile> {
        let file = SafeTensors::deserialize(bytes)?;
        let mut trace = TraceFile::default();
        for (name, view) in file.tensors() {
            match (name.as_str(), view.dtype()) {
                ("tokens", Dtype::I32) => trace.tokens = tokens(view.data())?,
                ("tokens", other) => bail!("tokens is {other:?}, expected I32"),
                (_, Dtype::F32) => {
                    trace.tensors.insert(name, floats(view.data()));
                }
                // Such as the greedy tokens of a reference: nothing of one forward.
                _ => {}
            }
        }
        ensure!(
            !trace.tokens.is_empty(),
            "no tensor `tokens`, or an empty one"
        );
        Ok(trace)
    }
}

fn tokens(bytes: &[u8]) -> anyhow::Result<Vec<u32>> {
    let words = bytes.as_chunks().0.iter();
    words
        .map(|word| {
            let token = i32::from_le_bytes(*word);
            u32::try_from(token).with_context(|| format!("token {token} is negative"))
        })
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

/// Writes `tensors` of a forward over `tokens`, and `logits` of every position, to `path`.
pub fn write(
    path: &Path,
    tokens: &[u32],
    tensors: &[RecordedTensor],
    logits: &[f32],
) -> anyhow::Result<()> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let n = tokens.len();
    let float = |data: &'_ [f32]| -> (Vec<usize>, Vec<u8>) {
        (vec![n, data.len() / n], bytemuck::cast_slice(data).to_vec())
    };
    let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = vec![(
        "tokens".into(),
        Dtype::I32,
        vec![n],
        bytemuck::cast_slice(&ids).to_vec(),
    )];
    let named = tensors
        .iter()
        .map(|tensor| (tensor.name.to_string(), &tensor.data[..]));
    for (name, data) in named.chain([("logits".to_owned(), logits)]) {
        let (shape, bytes) = float(data);
        parts.push((name, Dtype::F32, shape, bytes));
    }
    let views = parts.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>()?;
    safetensors::serialize_to_file(views, None, path)
        .with_context(|| format!("writing the trace {}", path.display()))
}
