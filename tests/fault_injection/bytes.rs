//! Models whose file was read wrongly: the bytes of one tensor are changed in memory.

use hyperion::gguf::Gguf;
use hyperion::model::Model;

use crate::support::fixture_bytes;

/// The bytes of the tiny model `name`.
pub fn file(name: &str) -> Vec<u8> {
    fixture_bytes(&format!("tiny/{name}.gguf"))
}

/// The model in `bytes`.
pub fn model(bytes: Vec<u8>) -> Model {
    let gguf = Gguf::from_bytes(bytes).expect("a GGUF file");
    Model::from_gguf(&gguf).expect("a model")
}

/// The model `name` after `change` to the data of `tensor`; it is given all bytes of the file and
/// where the tensor lies.
pub fn with_tensor(
    name: &str,
    tensor: &str,
    change: impl Fn(&mut Vec<u8>, std::ops::Range<usize>),
) -> Model {
    let mut bytes = file(name);
    let gguf = Gguf::from_bytes(bytes.clone()).expect("a GGUF file");
    let tensor = gguf.require(tensor).expect("a tensor");
    let start = tensor.offset() as usize;
    change(&mut bytes, start..start + tensor.bytes().len());
    model(bytes)
}

/// Transposes an f16 matrix of `n` rows and columns.
pub fn transpose(matrix: &mut [u8], n: usize) {
    let before = matrix.to_vec();
    for row in 0..n {
        for column in 0..n {
            let (to, from) = (2 * (row * n + column), 2 * (column * n + row));
            matrix[to..to + 2].copy_from_slice(&before[from..from + 2]);
        }
    }
}

/// Swaps the eight 6-bit scales of each Q4_K block with its eight minima. The first four of each are
/// the low six bits of bytes 4 to 7 and 8 to 11; the low and high nibbles of bytes 12 to 15 are the
/// low bits of the others, whose high bits are the top two of the bytes before.
pub fn swap_scales_and_minima(blocks: &mut [u8]) {
    for block in blocks.chunks_exact_mut(144) {
        let (scales, minima) = block[4..12].split_at_mut(4);
        scales.swap_with_slice(minima);
        swap_nibbles(&mut block[12..16]);
    }
}

/// Swaps the nibbles of every byte.
pub fn swap_nibbles(bytes: &mut [u8]) {
    bytes
        .iter_mut()
        .for_each(|byte| *byte = byte.rotate_left(4));
}
