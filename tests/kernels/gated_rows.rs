//! Tests of `ops/gated_rows.rs`, and of what multiplies its scales back.

use half::f16;
use kernels_gpu::abi::{DevicePtr, GatedRowsParams, KernelDef, RestoreParams};
use kernels_gpu::ops::elementwise::RESTORE_ROWS;
use kernels_gpu::ops::gated_rows::{
    GEGLU_BOUNDED_ROWS, GEGLU_ROWS, SWIGLU_BOUNDED_ROWS, SWIGLU_ROWS,
};
use kernels_gpu::prim::half::F16;
use kernels_gpu::prim::scale::{FACTOR_MAX, scale_of, scale_of_products};

use crate::elementwise::{gelu, silu};
use crate::harness::{Case, Random, Shape, Tolerance};

/// Factors on the gates and the other operands of rows in turn: ordinary ones, such that only the product is
/// beyond f16, far beyond, and one factor that is large alone.
const SIZES: [[f32; 2]; 4] = [[1.0, 1.0], [90.0, 90.0], [3e6, 1e5], [1e6, 1e-6]];

const TOLERANCE: Tolerance = Tolerance {
    relative: 5e-4,
    absolute: 2e-7,
    reason: "one rounding to f16, which may be subnormal, of the row divided by its scale",
};

/// A launch, and whether the rows' maxima are given, and a stream that the product will be added to.
struct Gated {
    rows: usize,
    width: usize,
    blocks: u32,
    threads: u32,
    has_maxima: bool,
    has_addend: bool,
}

impl Gated {
    fn check(&self, kernel: &KernelDef<GatedRowsParams>, activation: fn(f64) -> f64) {
        let &Gated { rows, width, .. } = self;
        let mut random = Random::new((rows * width) as u64);
        let mut factors = |which: usize| -> Vec<f32> {
            let values = random.floats(rows * width, 8.0).into_iter().enumerate();
            let scaled = values.map(|(i, x)| x * SIZES[i / width % SIZES.len()][which]);
            scaled.collect()
        };
        let (gate, up) = (factors(0), factors(1));
        let addend_width = 37;
        let addend = random.floats(rows * addend_width, 100.0);

        let mut scales = Vec::new();
        let mut maxima = Vec::new();
        let mut expected = Vec::new();
        for (gate, up) in gate.chunks(width).zip(up.chunks(width)) {
            let products = gate.iter().zip(up);
            let products = products.map(|(&g, &u)| activation(g.into()) * f64::from(u));
            let products: Vec<f64> = products.collect();
            let largest = gate
                .iter()
                .chain(up)
                .fold(0f32, |most, x| most.max(x.abs()));
            maxima.push(if largest > FACTOR_MAX { largest } else { 0.0 });
            let most = products.iter().fold(0f64, |most, x| most.max(x.abs()));
            let scale = match self.has_maxima {
                true => scale_of_products(largest),
                false => scale_of(most as f32),
            };
            scales.push(f64::from(scale));
            expected.extend(products.iter().map(|x| x / f64::from(scale)));
        }
        let is_scaled = scales.iter().filter(|&&scale| scale > 1.0).count();
        assert_eq!(is_scaled > 0, rows > 1, "{scales:?}");

        let mut case = Case::new(format!(
            "{}, {rows} rows of {width}, {} blocks of {}, maxima {}, addend {}",
            kernel.name, self.blocks, self.threads, self.has_maxima, self.has_addend
        ));
        let y = case.output::<F16>("y", rows * width);
        let out_scales = case.output::<f32>("scales", rows);
        let stream = case.in_out("addend", &addend);
        let bits: Vec<u32> = maxima
            .iter()
            .map(|largest: &f32| largest.to_bits())
            .collect();
        let params = GatedRowsParams {
            gate: case.input("gate", &gate),
            up: case.input("up", &up),
            y,
            scales: out_scales,
            maxima: match self.has_maxima {
                true => case.input("maxima", &bits),
                false => DevicePtr::NULL,
            },
            addend: match self.has_addend {
                true => stream,
                false => DevicePtr::NULL,
            },
            width: width as u32,
            addend_width: addend_width as u32,
            reserved: [0; 2],
        };
        let shape = Shape::new([self.blocks, rows as u32, 1], self.threads);
        case.launch(kernel, shape, params);
        case.check(out_scales, &scales, Tolerance::EXACT);
        case.check(y, &expected, TOLERANCE);
        let divided = addend
            .iter()
            .enumerate()
            .map(|(i, &x)| match self.has_addend {
                true => f64::from(x) / scales[i / addend_width],
                false => x.into(),
            });
        case.check(stream, &divided.collect::<Vec<f64>>(), Tolerance::EXACT);
    }
}

#[test]
fn rows_beyond_f16_are_divided() {
    for (rows, width, threads) in [
        (1, 4, 32),
        (5, 100, 32),
        (4, 896, 256),
        (9, 1000, 64),
        (4, 4864, 1024),
    ] {
        for (has_maxima, has_addend) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let (kernels, threads) = match has_maxima {
                true => (
                    [&SWIGLU_BOUNDED_ROWS, &GEGLU_BOUNDED_ROWS],
                    threads.min(256),
                ),
                false => ([&SWIGLU_ROWS, &GEGLU_ROWS], threads),
            };
            let gated = Gated {
                rows,
                width,
                blocks: match has_maxima {
                    true => width.div_ceil(threads as usize) as u32,
                    false => 1,
                },
                threads,
                has_maxima,
                has_addend,
            };
            gated.check(kernels[0], silu);
            gated.check(kernels[1], gelu);
        }
    }
}

/// In its row alone, whatever it is written as there.
#[test]
fn no_number_stays_none() {
    let width = 64;
    let mut gate = vec![1.0f32; 3 * width];
    gate[width + 5] = f32::NAN;
    gate[2 * width + 7] = f32::INFINITY;
    let mut case = Case::new("swiglu_rows of no numbers");
    let y = case.output::<F16>("y", 3 * width);
    let params = GatedRowsParams {
        gate: case.input("gate", &gate),
        up: case.input("up", &vec![1.0f32; 3 * width]),
        y,
        scales: case.output::<f32>("scales", 3),
        maxima: DevicePtr::NULL,
        addend: DevicePtr::NULL,
        width: width as u32,
        addend_width: 0,
        reserved: [0; 2],
    };
    case.launch(&SWIGLU_ROWS, Shape::new([1, 3, 1], 32), params);
    let y: Vec<f16> = case
        .read(y)
        .into_iter()
        .map(|y| f16::from_bits(y.0))
        .collect();
    for (i, y) in y.iter().enumerate() {
        assert_eq!(y.is_nan(), i == width + 5, "element {i}: {y}");
        assert_eq!(y.is_infinite(), i == 2 * width + 7, "element {i}: {y}");
    }
}

#[test]
fn rows_are_restored() {
    for (rows, width) in [(1, 1), (3, 31), (5, 256), (4, 896), (2, 1000)] {
        let mut random = Random::new((rows * width) as u64);
        let x = random.floats(rows * width, 4.0);
        let scales: Vec<f32> = (0..rows).map(|row| [1.0, 64.0, 2.0][row % 3]).collect();
        let restored: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(i, &x)| f64::from(x * scales[i / width]))
            .collect();
        let mut case = Case::new(format!("restore_rows, {rows} rows of {width}"));
        let x = case.in_out("x", &x);
        let scales = case.in_out("scales", &scales);
        let params = RestoreParams {
            x,
            scales,
            width: width as u32,
            reserved: 0,
        };
        case.launch(&RESTORE_ROWS, Shape::new([1, rows as u32, 1], 256), params);
        case.check(x, &restored, Tolerance::EXACT);
        case.check(scales, &vec![1.0; rows], Tolerance::EXACT);
    }
}
