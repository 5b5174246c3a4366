//! Weights read back from a device, bit for bit against the reader's decoder.

use half::f16;
use serde::Serialize;

use crate::backend::{Backend, BackendError};
use crate::gguf::Tensor;

/// What came of one tensor.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedWeight {
    /// Its name.
    pub tensor: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its elements.
    pub elements: usize,
    /// Elements whose bits differ; all where the device has another number of them.
    pub different: usize,
    /// The first of them.
    pub first: Option<usize>,
    /// Index, value on the device and value in the file (rounded to half precision) of the first
    /// elements, or of those from the first that differs.
    pub values: Vec<(usize, f32, f32)>,
}

/// Compares `tensor` as `backend` holds it, and keeps `n` values for people. `None` where the
/// backend holds no copy of it.
pub fn check(
    backend: &dyn Backend,
    tensor: &Tensor,
    n: usize,
) -> Option<Result<CheckedWeight, BackendError>> {
    let found = backend.read_weight(tensor.name())?;
    Some(found.map(|found| compare(tensor, &found, n)))
}

fn compare(tensor: &Tensor, found: &[u16], n: usize) -> CheckedWeight {
    let expected: Vec<u16> = tensor
        .to_f32()
        .iter()
        .map(|&value| f16::from_f32(value).to_bits())
        .collect();
    let mut unequal = (0..expected.len().max(found.len()))
        .filter(|&index| expected.get(index) != found.get(index))
        .peekable();
    let first = unequal.peek().copied();
    let value = |bits: &u16| f16::from_bits(*bits).to_f32();
    let from = first.unwrap_or(0);
    let pairs = found.iter().zip(&expected).enumerate().skip(from).take(n);
    CheckedWeight {
        tensor: tensor.name().to_owned(),
        ty: tensor.ty().to_string(),
        elements: expected.len(),
        values: pairs
            .map(|(index, (found, expected))| (index, value(found), value(expected)))
            .collect(),
        first,
        different: unequal.count(),
    }
}
