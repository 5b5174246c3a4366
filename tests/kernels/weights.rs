//! Matrices of every tensor type for the tests of the kernels that read weights.

use half::{bf16, f16};
use hyperion::gguf::{GgmlType, quant};
use kernels_gpu::abi::WeightType;

use crate::harness::Random;

/// A matrix with rows of `n_in` elements.
pub struct Matrix {
    /// Its blocks, row after row.
    pub bytes: Vec<u8>,
    /// The reader's decoding of it.
    pub values: Vec<f32>,
}

impl Matrix {
    /// Random blocks whose elements are mostly below 1.
    pub fn random(ty: WeightType, rows: usize, n_in: usize, random: &mut Random) -> Self {
        let blocks = rows * n_in / ty.block_elements() as usize;
        let bytes = (0..blocks).flat_map(|_| block(ty, random)).collect();
        Self::decode(ty, bytes, rows * n_in)
    }

    /// The matrix with these blocks.
    pub fn decode(ty: WeightType, bytes: Vec<u8>, elements: usize) -> Self {
        let mut values = vec![f32::NAN; elements];
        quant::dequantize(GgmlType::from(ty), &bytes, &mut values).expect("whole blocks");
        Self { bytes, values }
    }
}

/// A block of random integers with reasonable scales.
fn block(ty: WeightType, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..ty.block_bytes()).map(|_| random.bits() as u8).collect();
    // Places of half-precision scales and minimums, and how large their largest multiple may be.
    let (scales, largest): (&[usize], f32) = match ty {
        WeightType::F32 => return random.float(1.0).to_le_bytes().to_vec(),
        WeightType::F16 => return f16::from_f32(random.float(1.0)).to_le_bytes().to_vec(),
        WeightType::BF16 => return bf16::from_f32(random.float(1.0)).to_le_bytes().to_vec(),
        WeightType::MXFP4 => {
            // 2^-9 to 2^-2.
            bytes[0] = 118 + random.below(8) as u8;
            (&[], 0.0)
        }
        WeightType::Q4_0 | WeightType::Q5_0 => (&[0], 16.0),
        WeightType::Q8_0 | WeightType::IQ4NL => (&[0], 128.0),
        WeightType::Q4_1 | WeightType::Q5_1 => (&[0, 2], 32.0),
        WeightType::Q2K => (&[80, 82], 15.0 * 3.0),
        WeightType::Q3K => (&[108], 32.0 * 4.0),
        WeightType::Q4K => (&[0, 2], 63.0 * 15.0),
        WeightType::Q5K => (&[0, 2], 63.0 * 31.0),
        WeightType::Q6K => (&[208], 128.0 * 32.0),
        WeightType::IQ4XS => (&[0], 32.0 * 127.0),
    };
    for &at in scales {
        let scale = f16::from_f32(random.float(1.0 / largest));
        bytes[at..at + 2].copy_from_slice(&scale.to_le_bytes());
    }
    bytes
}
