//! Tests of `ops/elementwise.rs`.

use kernels_gpu::abi::AddParams;
use kernels_gpu::ops::elementwise::ADD_F32;

use crate::harness::{Case, Random, Shape, Tolerance};

#[test]
fn add() {
    for n in [1, 31, 256, 896, 4097] {
        let mut random = Random::new(n as u64);
        let (a, b) = (random.floats(n, 4.0), random.floats(n, 4.0));
        let expected: Vec<f64> = a.iter().zip(&b).map(|(&a, &b)| f64::from(a + b)).collect();

        let mut case = Case::new(format!("add, {n} elements"));
        let (a, b) = (case.input("a", &a), case.input("b", &b));
        let y = case.output::<f32>("y", n);
        let params = AddParams {
            a: a.cast(),
            b: b.cast(),
            y: y.cast(),
            n: n as u32,
            reserved: 0,
        };
        let blocks = n.div_ceil(256) as u32;
        case.launch(&ADD_F32, Shape::new([blocks, 1, 1], 256), params);
        case.check(y, &expected, Tolerance::EXACT);
    }
}
