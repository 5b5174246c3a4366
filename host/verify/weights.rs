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
    /// Index, value on the device and value in the file (of a matrix rounded to half precision) of the
    /// first elements, or of those from the first that differs.
    pub values: Vec<(usize, f32, f32)>,
}

/// Compares `tensor` as `backend` holds it, a matrix or a vector, and keeps `n` values for people. `None`
/// where the backend holds no copy of it.
pub fn check(
    backend: &dyn Backend,
    tensor: &Tensor,
    n: usize,
) -> Option<Result<CheckedWeight, BackendError>> {
    let (name, ty) = (tensor.name(), tensor.ty().to_string());
    if let Some(found) = backend.read_weight(name) {
        let values = tensor.to_f32().into_iter();
        let expected: Vec<u16> = values.map(|v| f16::from_f32(v).to_bits()).collect();
        let value = |bits: u16| f16::from_bits(bits).to_f32();
        return Some(found.map(|found| compare(name, ty, &found, &expected, value, n)));
    }
    let found = backend.read_vector(name)?;
    Some(found.map(|found| compare_f32(name, ty, &found, &tensor.to_f32(), n)))
}

/// Compares the cosines and sines that `backend` holds for rotation `index` of its model with those that follow
/// from the file's metadata and its factors for RoPE, which take effect in this table and nowhere else.
pub fn check_rope(
    backend: &dyn Backend,
    index: usize,
    n: usize,
) -> Option<Result<CheckedWeight, BackendError>> {
    let rope = backend.model().config.ropes.get(index)?;
    let found = match backend.read_rope(index)? {
        Ok(found) => found,
        Err(error) => return Some(Err(error)),
    };
    let positions = found.len().div_ceil(rope.rotated().max(1));
    let expected = (0..positions).flat_map(|position| rope.cos_sin(position).flatten());
    let expected: Vec<f32> = expected.map(|value| value as f32).collect();
    let name = format!("RoPE table {index}");
    Some(Ok(compare_f32(
        &name,
        "F32".to_owned(),
        &found,
        &expected,
        n,
    )))
}

/// Compares the factors on queries that `backend` holds for its model's temperature with the rule's own.
pub fn check_query_factors(
    backend: &dyn Backend,
    n: usize,
) -> Option<Result<CheckedWeight, BackendError>> {
    let temperature = backend.model().config.query_temperature?;
    let found = match backend.read_query_factors()? {
        Ok(found) => found,
        Err(error) => return Some(Err(error)),
    };
    let expected = (0..found.len()).map(|position| temperature.factor(position) as f32);
    let expected: Vec<f32> = expected.collect();
    let ty = "F32".to_owned();
    Some(Ok(compare_f32(
        "factors on queries",
        ty,
        &found,
        &expected,
        n,
    )))
}

fn compare_f32(name: &str, ty: String, found: &[f32], expected: &[f32], n: usize) -> CheckedWeight {
    // As bits, so that NaN equals itself and the zeros differ.
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    compare(name, ty, &bits(found), &bits(expected), f32::from_bits, n)
}

fn compare<T: Copy + PartialEq>(
    name: &str,
    ty: String,
    found: &[T],
    expected: &[T],
    value: impl Fn(T) -> f32,
    n: usize,
) -> CheckedWeight {
    let mut unequal = (0..expected.len().max(found.len()))
        .filter(|&index| expected.get(index) != found.get(index))
        .peekable();
    let first = unequal.peek().copied();
    let from = first.unwrap_or(0);
    let pairs = found.iter().zip(expected).enumerate().skip(from).take(n);
    CheckedWeight {
        tensor: name.to_owned(),
        ty,
        elements: expected.len(),
        values: pairs
            .map(|(index, (&found, &expected))| (index, value(found), value(expected)))
            .collect(),
        first,
        different: unequal.count(),
    }
}
