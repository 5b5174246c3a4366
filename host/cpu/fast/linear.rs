//! Matrix products: which kernel, and which rows on which thread.

use std::cell::RefCell;

use rayon::prelude::*;

use super::activations::{Quantized, n_chunks, quantize};
use super::panel::{self, Pairs, Panel, PanelProduct};
use super::{plain, vector};
use crate::cpu::interrupt::Interrupt;
use crate::gguf::GgmlType;
use crate::gguf::quant::chunk::with_chunk;
use crate::gguf::quant::simd::dispatch;
use crate::model::Linear;

/// Vectors from which on unpacking a panel pays.
const MANY: usize = 4;

/// Rows of a task where they are multiplied with one vector.
const ROWS_OF_VECTOR: usize = 64;

/// `x W^T + bias` for each of the matrices, which are of one width: `[tokens, n_out]`. Rows are missing once
/// `interrupt` is requested.
pub fn linears<const N: usize>(
    matrices: [&Linear; N],
    x: &[f32],
    interrupt: Interrupt,
) -> [Vec<f32>; N] {
    let n_in = matrices.first().map_or(1, |matrix| matrix.n_in());
    let input = Input::new(x, n_in, matrices.iter().any(|matrix| is_quantized(matrix)));
    let n_vectors = input.n_vectors();
    if n_vectors == 0 {
        return matrices.map(|_| Vec::new());
    }
    let rows = match n_vectors {
        1 => ROWS_OF_VECTOR,
        _ => panel::ROWS,
    };
    let mut parts = matrices.map(|matrix| {
        let n_rows = matrix.n_out().next_multiple_of(panel::ROWS);
        vec![0.0; n_rows * n_vectors]
    });
    let tasks: Vec<_> = matrices
        .iter()
        .zip(&mut parts)
        .flat_map(|(&matrix, out)| {
            let parts = out.chunks_mut(rows * n_vectors).enumerate();
            parts.map(move |(index, out)| (matrix, index * rows, out))
        })
        .collect();
    tasks.into_par_iter().for_each(|(matrix, first, out)| {
        if !interrupt.is_requested() {
            let end = (first + rows).min(matrix.n_out());
            input.products(matrix, first..end, out);
        }
    });
    let mut matrices = matrices.into_iter();
    parts.map(|parts| match matrices.next() {
        Some(matrix) => in_order(matrix, parts, n_vectors),
        None => parts,
    })
}

fn is_quantized(matrix: &Linear) -> bool {
    matrix.weight.ty().block_elements() > 1
}

/// Tasks' parts in the order of an output, with the bias added.
fn in_order(matrix: &Linear, mut parts: Vec<f32>, n_vectors: usize) -> Vec<f32> {
    let n_out = matrix.n_out();
    let mut out = match n_vectors {
        1 => {
            parts.truncate(n_out);
            parts
        }
        _ => gathered(&parts, n_out, n_vectors),
    };
    if let Some(bias) = &matrix.bias {
        for row in out.chunks_exact_mut(n_out) {
            row.iter_mut()
                .zip(bias)
                .for_each(|(value, bias)| *value += bias);
        }
    }
    out
}

/// `[panels, vectors, ROWS]` to `[vectors, n_out]`.
fn gathered(parts: &[f32], n_out: usize, n_vectors: usize) -> Vec<f32> {
    let mut out = vec![0.0; n_out * n_vectors];
    let rows = out.par_chunks_exact_mut(n_out).with_min_len(16).enumerate();
    rows.for_each(|(v, out)| {
        for (panel, out) in out.chunks_mut(panel::ROWS).enumerate() {
            let from = (panel * n_vectors + v) * panel::ROWS;
            out.copy_from_slice(&parts[from..from + out.len()]);
        }
    });
    out
}

/// What products read, in the forms that they want.
struct Input<'a> {
    x: &'a [f32],
    n_in: usize,
    /// In 8 bits, where a matrix is quantized.
    vectors: Vec<Quantized>,
    /// The same in pairs, where there are many.
    pairs: Vec<Pairs>,
}

thread_local! {
    /// Where a thread unpacks rows.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    panel: Panel,
    rows: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> Input<'a> {
    fn new(x: &'a [f32], n_in: usize, is_quantized: bool) -> Input<'a> {
        let mut input = Input {
            x,
            n_in,
            vectors: Vec::new(),
            pairs: Vec::new(),
        };
        if is_quantized {
            let vectors = x.par_chunks_exact(n_in).with_min_len(8);
            input.vectors = vectors.flat_map_iter(quantize).collect();
            if input.n_vectors() >= MANY {
                let vectors = input.vectors.par_iter().with_min_len(32);
                input.pairs = vectors.map(panel::pairs).collect();
            }
        }
        input
    }

    fn n_vectors(&self) -> usize {
        self.x.len() / self.n_in
    }

    /// The products with rows of a matrix, at most [`panel::ROWS`] of them unless there is one vector: `[vectors,
    /// ROWS]`.
    fn products(&self, matrix: &Linear, rows: std::ops::Range<usize>, out: &mut [f32]) {
        let ty = matrix.weight.ty();
        SCRATCH.with_borrow_mut(|scratch| match (is_quantized(matrix), self.n_vectors()) {
            (true, MANY..) => self.panel(ty, matrix, rows, &mut scratch.panel, out),
            (_, 1) => self.rows(ty, matrix, rows, &mut scratch.rows, out),
            (_, n_vectors) => {
                let n_rows = rows.len();
                scratch.out.resize(n_rows * n_vectors, 0.0);
                self.rows(ty, matrix, rows, &mut scratch.rows, &mut scratch.out);
                for (v, out) in out.chunks_exact_mut(panel::ROWS).enumerate() {
                    for (r, out) in out[..n_rows].iter_mut().enumerate() {
                        *out = scratch.out[r * n_vectors + v];
                    }
                }
            }
        });
    }

    fn panel(
        &self,
        ty: GgmlType,
        matrix: &Linear,
        rows: std::ops::Range<usize>,
        panel: &mut Panel,
        out: &mut [f32],
    ) {
        let row_bytes = matrix.weight.row_bytes(0).len();
        let product = PanelProduct {
            panel,
            bytes: &matrix.weight.bytes()[rows.start * row_bytes..rows.end * row_bytes],
            row_bytes,
            n_in: self.n_in,
            vectors: &self.vectors,
            pairs: &self.pairs,
            out: out.as_chunks_mut().0,
        };
        with_chunk(ty, product);
    }

    /// `[rows, vectors]`.
    fn rows(
        &self,
        ty: GgmlType,
        matrix: &Linear,
        rows: std::ops::Range<usize>,
        unpacked: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let out = &mut out[..rows.len() * self.n_vectors()];
        if is_quantized(matrix) {
            let row_bytes = matrix.weight.row_bytes(0).len();
            let product = vector::Rows {
                bytes: &matrix.weight.bytes()[rows.start * row_bytes..rows.end * row_bytes],
                row_bytes,
                vectors: &self.vectors,
                n_chunks: n_chunks(self.n_in),
                out,
            };
            with_chunk(ty, product);
        } else {
            unpacked.resize(rows.len() * self.n_in, 0.0);
            matrix.weight.dequantize_rows(rows, unpacked);
            dispatch(plain::Rows {
                rows: unpacked,
                x: self.x,
                n_in: self.n_in,
                out,
            });
        }
    }
}
