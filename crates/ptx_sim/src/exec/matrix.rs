//! `mma.sync`, `ldmatrix` and `stmatrix`.
//!
//! Products of halves are exact in single precision and are added in order of k with one rounding
//! each. Devices align a group of products to the largest and truncate, in an order of their own; the
//! two differ by at most about k·2⁻²³ of the sum of the products' magnitudes.

#![expect(clippy::needless_range_loop, reason = "a lane indexes many columns")]

use crate::exec::access::{actor, addresses, resolve};
use crate::exec::registers::LANES;
use crate::exec::report::{Outcome, invalid, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::Warp;
use crate::numeric::half;
use crate::op::{Address, Mma, MmaInput, R};
use crate::ty::Space;

const M: usize = 16;
const N: usize = 8;
const MAX_K: usize = 32;

/// Row and column of an element of A: registers hold runs of `run` elements along k; the row group
/// changes with the first bit of the register's number, the half of k with the second.
fn a_place(lane: usize, register: usize, part: usize, run: usize, k: usize) -> (usize, usize) {
    (
        lane / 4 + 8 * (register % 2),
        lane % 4 * run + part + register / 2 * (k / 2),
    )
}

fn b_place(lane: usize, register: usize, part: usize, run: usize, k: usize) -> (usize, usize) {
    (lane % 4 * run + part + register * (k / 2), lane / 4)
}

fn c_place(lane: usize, element: usize) -> (usize, usize) {
    (lane / 4 + 8 * (element / 2), lane % 4 * 2 + element % 2)
}

pub(super) fn multiply(warp: &mut Warp, op: &Mma) -> Outcome<()> {
    let columns = op.a.iter().chain(&op.b).chain(&op.c);
    let undefined_column = |column: &R| warp.registers.defined32[*column as usize] != u32::MAX;
    if columns.copied().any(|column| undefined_column(&column)) {
        return Err(undefined("a matrix fragment"));
    }
    match op.input {
        MmaInput::Int8(a_signed, b_signed) => multiply_bytes(warp, op, a_signed, b_signed),
        _ => multiply_floats(warp, op),
    }
    for column in &op.d {
        warp.registers.defined32[*column as usize] = u32::MAX;
    }
    warp.clock.tick();
    Ok(())
}

/// The elements of a register of a fragment, for all lanes: the first (or only) ones, then the second.
fn elements(words: &[u32; LANES], input: MmaInput) -> [[f32; LANES]; 2] {
    match input {
        MmaInput::F16 => split(words, |word| {
            (
                half::f16_to_f32(word & 0xffff),
                half::f16_to_f32(word >> 16),
            )
        }),
        MmaInput::Bf16 => split(words, |word| {
            (
                half::bf16_to_f32(word & 0xffff),
                half::bf16_to_f32(word >> 16),
            )
        }),
        // The device ignores the lower bits of a tf32's fraction.
        _ => split(words, |word| (word & 0xffff_e000, 0)),
    }
}

#[inline(always)]
fn split(words: &[u32; LANES], parts: impl Fn(u32) -> (u32, u32)) -> [[f32; LANES]; 2] {
    let mut out = [[0.0; LANES]; 2];
    for lane in 0..LANES {
        let (low, high) = parts(words[lane]);
        out[0][lane] = f32::from_bits(low);
        out[1][lane] = f32::from_bits(high);
    }
    out
}

fn multiply_floats(warp: &mut Warp, op: &Mma) {
    let file = &mut warp.registers.r32;
    let run = if op.input == MmaInput::Tf32 { 1 } else { 2 };
    let mut a = [[0.0; MAX_K]; M];
    let mut b = [[0.0; N]; MAX_K];
    let mut sum = [[0.0; N]; M];
    for (register, column) in op.a.iter().enumerate() {
        let parts = elements(&file[*column as usize], op.input);
        for part in 0..run {
            for lane in 0..LANES {
                let (row, column) = a_place(lane, register, part, run, op.k);
                a[row][column] = parts[part][lane];
            }
        }
    }
    for (register, column) in op.b.iter().enumerate() {
        let parts = elements(&file[*column as usize], op.input);
        for part in 0..run {
            for lane in 0..LANES {
                let (row, column) = b_place(lane, register, part, run, op.k);
                b[row][column] = parts[part][lane];
            }
        }
    }
    for index in 0..4 {
        for lane in 0..LANES {
            let (row, column) = c_place(lane, index);
            let bits = if op.half_accumulator {
                let word = file[op.c[index / 2] as usize][lane];
                half::f16_to_f32((word >> (16 * (index % 2))) & 0xffff)
            } else {
                file[op.c[index] as usize][lane]
            };
            sum[row][column] = f32::from_bits(bits);
        }
    }
    for (sum, a) in sum.iter_mut().zip(&a) {
        let mut row = *sum;
        for (a, b) in a[..op.k].iter().zip(&b) {
            for n in 0..N {
                row[n] += a * b[n];
            }
        }
        *sum = row;
    }
    for lane in 0..LANES {
        let at = |index| {
            let (row, column) = c_place(lane, index);
            sum[row][column]
        };
        if op.half_accumulator {
            for (pair, column) in op.d.iter().enumerate() {
                let low = half::f32_to_f16(at(2 * pair).to_bits());
                let high = half::f32_to_f16(at(2 * pair + 1).to_bits());
                file[*column as usize][lane] = low | high << 16;
            }
        } else {
            for (index, column) in op.d.iter().enumerate() {
                file[*column as usize][lane] = crate::numeric::float::canonical(at(index));
            }
        }
    }
}

fn multiply_bytes(warp: &mut Warp, op: &Mma, a_signed: bool, b_signed: bool) {
    let file = &mut warp.registers.r32;
    let extend = |byte: u8, signed: bool| {
        if signed {
            i32::from(byte.cast_signed())
        } else {
            i32::from(byte)
        }
    };
    let mut a = [[0i32; MAX_K]; M];
    let mut b = [[0i32; N]; MAX_K];
    for lane in 0..LANES {
        for (register, column) in op.a.iter().enumerate() {
            let bytes = file[*column as usize][lane].to_le_bytes();
            for part in 0..4 {
                let (row, column) = a_place(lane, register, part, 4, op.k);
                a[row][column] = extend(bytes[part], a_signed);
            }
        }
        for (register, column) in op.b.iter().enumerate() {
            let bytes = file[*column as usize][lane].to_le_bytes();
            for part in 0..4 {
                let (row, column) = b_place(lane, register, part, 4, op.k);
                b[row][column] = extend(bytes[part], b_signed);
            }
        }
    }
    let mut products = [[0i32; N]; M];
    for (products, a) in products.iter_mut().zip(&a) {
        let mut row = *products;
        for (a, b) in a[..op.k].iter().zip(&b) {
            for n in 0..N {
                row[n] += a * b[n];
            }
        }
        *products = row;
    }
    for lane in 0..LANES {
        let mut out = [0; 4];
        for index in 0..4 {
            let (row, column) = c_place(lane, index);
            let c = file[op.c[index] as usize][lane].cast_signed();
            let product = products[row][column];
            let sum = if op.saturate {
                c.saturating_add(product)
            } else {
                c.wrapping_add(product)
            };
            out[index] = sum.cast_unsigned();
        }
        for (value, column) in out.iter().zip(&op.d) {
            file[*column as usize][lane] = *value;
        }
    }
}

/// The offsets of the rows of each 8×8 matrix: lanes 8i to 8i + 7 hold those of matrix i.
fn rows(
    block: &BlockState,
    warp: &Warp,
    address: &Address,
    matrices: usize,
) -> Outcome<[usize; LANES]> {
    let used = if matrices == 4 {
        u32::MAX
    } else {
        (1 << (8 * matrices)) - 1
    };
    let addresses = addresses(&warp.registers, address, used)?;
    let mut rows = [0; LANES];
    for lane in 0..8 * matrices {
        let (space, address) = resolve(address.space, addresses[lane]);
        if space != Space::Shared {
            return Err(invalid("a matrix row outside of shared memory"));
        }
        rows[lane] = block.shared.place(lane, address, 16, 16)?;
    }
    Ok(rows)
}

pub(super) fn load(
    block: &mut BlockState,
    warp: &mut Warp,
    address: &Address,
    d: &[R],
    transposed: bool,
) -> Outcome<()> {
    let rows = rows(block, warp, address, d.len())?;
    for (matrix, column) in d.iter().enumerate() {
        let mut elements = [[0u32; 8]; 8];
        for (row, elements) in elements.iter_mut().enumerate() {
            let lane = 8 * matrix + row;
            let data = block
                .shared
                .read(lane, rows[lane], 16, actor(warp, lane, false))?;
            for (element, bytes) in elements.iter_mut().zip(data.as_chunks::<2>().0) {
                *element = u32::from(u16::from_le_bytes(*bytes));
            }
        }
        for lane in 0..LANES {
            let (row, pair) = (lane / 4, lane % 4 * 2);
            warp.registers.r32[*column as usize][lane] = if transposed {
                elements[pair][row] | elements[pair + 1][row] << 16
            } else {
                elements[row][pair] | elements[row][pair + 1] << 16
            };
        }
        warp.registers.defined32[*column as usize] = u32::MAX;
    }
    Ok(())
}

pub(super) fn store(
    block: &mut BlockState,
    warp: &mut Warp,
    address: &Address,
    a: &[R],
    transposed: bool,
) -> Outcome<()> {
    let rows = rows(block, warp, address, a.len())?;
    for (matrix, column) in a.iter().enumerate() {
        if warp.registers.defined32[*column as usize] != u32::MAX {
            return Err(undefined("a matrix fragment"));
        }
        let words = warp.registers.r32[*column as usize];
        for row in 0..8 {
            let mut data = [0; 16];
            for (index, bytes) in data.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let (lane, high) = if transposed {
                    (index * 4 + row / 2, row % 2)
                } else {
                    (row * 4 + index / 2, index % 2)
                };
                *bytes = ((words[lane] >> (16 * high)) as u16).to_le_bytes();
            }
            let lane = 8 * matrix + row;
            block
                .shared
                .write(lane, rows[lane], &data, actor(warp, lane, false))?;
        }
    }
    Ok(())
}
