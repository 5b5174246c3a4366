//! A model that is as small as the kernels take, for tests that run a text hundreds of times.

use hyperion::gguf::{GgmlType, Gguf, Value};

use super::fixture_bytes;
use super::gguf_writer::{GgufWriter, TensorSource};

/// Elements of the residual stream, of the one head and of the gated product.
const WIDTH: usize = 64;
/// Bytes of a block of 32 elements of Q4_0.
const BLOCK_BYTES: usize = 18;

/// The first block of `tiny-llama-q4_0-2`, with the first elements of every row and the first rows of every matrix.
pub fn cropped_model() -> Gguf {
    let bytes = fixture_bytes("tiny/tiny-llama-q4_0-2.gguf");
    let mut file = GgufWriter::from_gguf(&Gguf::from_bytes(bytes).expect("a GGUF file"));
    for (key, value) in [
        ("llama.block_count", 1),
        ("llama.embedding_length", WIDTH),
        ("llama.feed_forward_length", WIDTH),
        ("llama.attention.head_count", 1),
        ("llama.attention.head_count_kv", 1),
    ] {
        file.set(key, Value::U32(value as u32));
    }
    file.tensors
        .retain(|tensor| !tensor.name.starts_with("blk.1."));
    file.tensors.iter_mut().for_each(crop);
    Gguf::from_bytes(file.to_bytes()).expect("a GGUF file")
}

fn crop(tensor: &mut TensorSource) {
    let row_bytes = |elements: usize| match tensor.ty {
        GgmlType::F32 => 4 * elements,
        GgmlType::Q4_0 => elements / 32 * BLOCK_BYTES,
        other => panic!("{}: rows of {other} are not cropped", tensor.name),
    };
    let (kept, whole) = (row_bytes(WIDTH), row_bytes(tensor.dims[0]));
    tensor.dims[0] = WIDTH;
    let mut rows = usize::MAX;
    // One for each token of the vocabulary.
    let is_vocab = matches!(&*tensor.name, "token_embd.weight" | "output.weight");
    if !is_vocab && let Some(n_rows) = tensor.dims.get_mut(1) {
        *n_rows = WIDTH;
        rows = WIDTH;
    }
    let cropped = tensor.data.chunks_exact(whole).take(rows);
    tensor.data = cropped.flat_map(|row| &row[..kept]).copied().collect();
}
