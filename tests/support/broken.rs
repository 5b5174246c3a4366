//! Models with numbers that are not finite.

use hyperion::gguf::{GgmlType, Gguf};

use super::gguf_writer::{GgufWriter, TensorSource};

/// The GGUF file `bytes` with an embedding of `token` that is not finite, and with an output matrix of its own, so
/// that no other token is concerned.
pub fn with_broken_token(bytes: &[u8], token: u32) -> Vec<u8> {
    let mut file = untied(bytes);
    break_row(find(&mut file, "token_embd.weight"), token as usize);
    file.to_bytes()
}

/// The GGUF file `bytes` with a logit that is not finite, that of `token`, whatever comes before.
pub fn with_broken_logit(bytes: &[u8], token: u32) -> Vec<u8> {
    let mut file = untied(bytes);
    break_row(find(&mut file, "output.weight"), token as usize);
    file.to_bytes()
}

/// The file with an output matrix of its own.
fn untied(bytes: &[u8]) -> GgufWriter {
    let mut file = read(bytes);
    if !file
        .tensors
        .iter()
        .any(|tensor| tensor.name == "output.weight")
    {
        let embeddings = find(&mut file, "token_embd.weight").clone();
        file.tensors.push(TensorSource {
            name: "output.weight".to_owned(),
            ..embeddings
        });
    }
    file
}

/// The GGUF file `bytes`, to be changed.
pub fn read(bytes: &[u8]) -> GgufWriter {
    let gguf = Gguf::from_bytes(bytes.to_vec()).expect("a GGUF file");
    let metadata = gguf.metadata().iter();
    GgufWriter {
        metadata: metadata
            .filter(|(key, _)| *key != "general.alignment")
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect(),
        tensors: gguf
            .tensors()
            .iter()
            .map(|tensor| TensorSource {
                name: tensor.name().to_owned(),
                ty: tensor.ty(),
                dims: tensor.dims().to_vec(),
                data: tensor.bytes().to_vec(),
            })
            .collect(),
        ..GgufWriter::default()
    }
}

fn find<'a>(file: &'a mut GgufWriter, name: &str) -> &'a mut TensorSource {
    let mut tensors = file.tensors.iter_mut();
    tensors
        .find(|tensor| tensor.name == name)
        .expect("a tensor")
}

/// Makes the first block's scale, or the first element, of a row NaN.
fn break_row(tensor: &mut TensorSource, row: usize) {
    const NAN: [u8; 2] = 0x7e00u16.to_le_bytes();
    let row_bytes = tensor.data.len() / tensor.dims[1];
    let scale = match tensor.ty {
        GgmlType::F32 => {
            tensor.data[row * row_bytes..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
            return;
        }
        // Behind the elements and their scales.
        GgmlType::Q6K => 208,
        GgmlType::F16 | GgmlType::Q8_0 | GgmlType::Q4_0 | GgmlType::Q4K | GgmlType::Q5K => 0,
        other => panic!("a row of {other} has no known scale"),
    };
    tensor.data[row * row_bytes + scale..][..2].copy_from_slice(&NAN);
}
