//! Vectors in 8 bits on the host, as [`Q8Vectors`](kernels_gpu::abi::Q8Vectors) describes them.

use kernels_gpu::abi::{
    DevicePtr, MATMUL_Q8_STEP, MATMUL_TILE_VECTORS, Q8Vectors, matmul_q8_steps, q8_vectors_bytes,
};

use crate::harness::Case;

/// Elements of a group with a scale.
const GROUP: usize = 32;

/// The integers, scales and sums of vectors, in their places.
pub struct Encoded {
    pub elements: Vec<i8>,
    pub scales: Vec<f32>,
    pub sums: Vec<f32>,
    n_in: usize,
    vectors: usize,
}

impl Encoded {
    /// Places whose elements are zeros, and whose scales and sums are NaN where there are no vectors.
    fn empty(n_in: usize, vectors: usize) -> Self {
        let [elements, scales] = q8_vectors_bytes(n_in as u32, vectors as u32);
        Self {
            elements: vec![0; elements as usize],
            scales: vec![f32::NAN; scales as usize / 4],
            sums: vec![f32::NAN; scales as usize / 4],
            n_in,
            vectors,
        }
    }

    /// Vectors `[vectors][n_in]`, rounded; the sums exact.
    pub fn of(x: &[f32], n_in: usize, vectors: usize) -> Self {
        let mut encoded = Self::empty(n_in, vectors);
        let padded = matmul_q8_steps(n_in as u32) as usize * MATMUL_Q8_STEP as usize;
        for vector in 0..vectors {
            for first in (0..padded).step_by(GROUP) {
                let at = |i: usize| match first + i < n_in {
                    true => x[vector * n_in + first + i],
                    false => 0.0,
                };
                let largest = (0..GROUP).fold(0f32, |most, i| most.max(at(i).abs()));
                let scale = largest / 127.0;
                let mut sum = 0.0;
                for i in 0..GROUP {
                    let q = if scale > 0.0 {
                        (at(i) / scale).round_ties_even()
                    } else {
                        0.0
                    };
                    sum += q;
                    let place = encoded.element(vector, first + i);
                    encoded.elements[place] = q as i8;
                }
                let (scale_at, sum_at) = (encoded.scale(vector, first), encoded.sum(vector, first));
                encoded.scales[scale_at] = scale;
                encoded.sums[sum_at] = scale * sum;
            }
        }
        encoded
    }

    /// What the integers stand for, `[vectors][n_in]`.
    pub fn values(&self) -> Vec<f64> {
        let places = (0..self.vectors).flat_map(|vector| (0..self.n_in).map(move |i| (vector, i)));
        let values = places.map(|(vector, i)| {
            let q = f64::from(self.elements[self.element(vector, i)]);
            q * f64::from(self.scales[self.scale(vector, i)])
        });
        values.collect()
    }

    /// Of element `i` of a vector: the number of its step's tile, its unit, and the vector's number in the tile.
    fn indices(&self, vector: usize, i: usize) -> [usize; 3] {
        let per_tile = MATMUL_TILE_VECTORS as usize;
        let (step, tiles) = (i / MATMUL_Q8_STEP as usize, self.vectors.div_ceil(per_tile));
        let unit = i % MATMUL_Q8_STEP as usize / GROUP;
        [step * tiles + vector / per_tile, unit, vector % per_tile]
    }

    /// Where the byte of an element is.
    pub fn element(&self, vector: usize, i: usize) -> usize {
        let [place, unit, g] = self.indices(vector, i);
        let (half, t, byte) = (i % 32 / 16, i % 16 / 4, i % 4);
        let (pair, which) = (unit / 2, unit % 2);
        ((((place * 4 + pair) * 32 + 4 * g + t) * 2 + which) * 2 + half) * 4 + byte
    }

    /// Where the scale of an element's group is.
    pub fn scale(&self, vector: usize, i: usize) -> usize {
        let [place, unit, g] = self.indices(vector, i);
        (((place * 4 + unit / 2) * 4 + g / 2) * 2 + unit % 2) * 2 + g % 2
    }

    /// Where the sum of an element's group is.
    pub fn sum(&self, vector: usize, i: usize) -> usize {
        let [place, unit, g] = self.indices(vector, i);
        (place * 8 + unit) * 8 + g
    }

    /// On the device.
    pub fn input(&self, case: &mut Case) -> Q8Vectors {
        let elements: DevicePtr<i8> = case.input("elements", &self.elements);
        Q8Vectors {
            elements: elements.cast(),
            scales: case.input("scales", &self.scales),
            sums: case.input("sums", &self.sums),
        }
    }

    /// Room on the device for vectors of this size, and what a kernel left there.
    pub fn room(case: &mut Case, n_in: usize, vectors: usize) -> (Q8Vectors, DevicePtr<i8>) {
        // Places of vectors that there are not stay as they are.
        let empty = Self::empty(n_in, vectors);
        let elements: DevicePtr<i8> = case.in_out("elements", &empty.elements);
        let y = Q8Vectors {
            elements: elements.cast(),
            scales: case.in_out("scales", &empty.scales),
            sums: case.in_out("sums", &empty.sums),
        };
        (y, elements)
    }

    /// What a kernel wrote.
    pub fn read(
        case: &Case,
        (y, elements): (Q8Vectors, DevicePtr<i8>),
        n_in: usize,
        vectors: usize,
    ) -> Self {
        Self {
            elements: case.read(elements),
            scales: case.read(y.scales),
            sums: case.read(y.sums),
            n_in,
            vectors,
        }
    }
}
