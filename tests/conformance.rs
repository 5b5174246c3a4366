//! What `examples/conformance` compares a GPU with: that it leaves no instruction of the kernels out, and
//! that differences are found.

#[path = "../examples/conformance/compare.rs"]
mod compare;
#[path = "../examples/conformance/suite.rs"]
mod suite;

use std::collections::BTreeSet;

use hyperion::device::sim::SimDevice;
use hyperion::ptx;
use hyperion::ptx::{PtxImage, PtxText};
use ptx_sim::Module;

use compare::Comparison;

/// The instructions with their types.
fn opcodes(text: &str) -> BTreeSet<String> {
    let module = Module::parse(text).expect("the simulator reads it");
    let instructions = module.kernels().flat_map(|kernel| kernel.instructions());
    instructions
        .map(|found| found.opcode().to_owned())
        .collect()
}

#[test]
fn every_instruction_of_the_kernels_has_a_case() {
    let covered = opcodes(&suite::ptx(&suite::cases().expect("cases")));
    for module in ptx::modules() {
        let used = opcodes(module.ptx());
        let missing: Vec<&String> = used.difference(&covered).collect();
        assert!(
            missing.is_empty(),
            "sm_{}: {missing:#?}",
            module.compute_capability
        );
    }
}

/// Every case runs, and a device with another result would be found.
#[test]
fn a_wrong_bit_in_a_result_is_found() {
    let cases = suite::cases().expect("cases");
    let image = PtxImage {
        arch: 80,
        text: PtxText::Plain(suite::ptx(&cases).leak()),
    };
    let simulator = SimDevice::open(&[image]).expect("the simulator reads it");
    for (index, case) in cases.iter().enumerate() {
        let results =
            suite::run(&simulator, index).unwrap_or_else(|e| panic!("{}: {e}", case.body));
        for &result in &results {
            // The highest bits of the exponents of a single and of both halves.
            let wrong = result ^ 0x4000_4000;
            assert!(case.comparison.agree(result, result), "{}", case.body);
            assert!(
                !case.comparison.agree(wrong, result),
                "{}: {result:#x}",
                case.body
            );
        }
    }
}

#[test]
fn bounds_are_kept() {
    let singles =
        |comparison: Comparison, a: f32, b: f32| comparison.agree(a.to_bits(), b.to_bits());
    let ulp = Comparison::Ulp(2);
    let after = |x: f32, n| f32::from_bits(x.to_bits() + n);
    assert!(singles(ulp, 1.0, after(1.0, 2)) && !singles(ulp, 1.0, after(1.0, 3)));
    assert!(singles(ulp, -0.0, f32::from_bits(2)) && !singles(ulp, f32::INFINITY, f32::MAX));
    assert!(
        !singles(ulp, 1.0, -1.0) && !singles(ulp, f32::NAN, 1.0) && !singles(ulp, 1.0, f32::NAN)
    );
    assert!(singles(ulp, f32::NAN, -f32::NAN));
    let absolute = Comparison::Absolute(0.5);
    assert!(singles(absolute, 1.0, 1.5) && !singles(absolute, 1.0, 1.6));
    assert!(
        !singles(absolute, f32::NAN, 1.0) && !singles(absolute, f32::INFINITY, f32::NEG_INFINITY)
    );
    let half = Comparison::Half(1);
    assert!(half.agree(0x3c00_3c01, 0x3c01_3c00) && !half.agree(0x3c00_3c02, 0x3c00_3c00));
    assert!(!half.agree(0x7e00_3c00, 0x3c00_3c00) && half.agree(0x8000_3c00, 0x0000_3c00));
}

#[test]
fn lines_that_are_no_cases_are_refused() {
    for line in [
        "",
        "exact",
        "exactly add.s32",
        "ulp",
        "ulp 1",
        "ulp x add.s32",
        "near 1 add.s32",
    ] {
        assert!(Comparison::parse(line).is_err(), "{line}");
    }
    let (comparison, body) = Comparison::parse("abs 1e-3 tanh.approx.f32 %r0, %r1;").unwrap();
    assert_eq!(comparison, Comparison::Absolute(1e-3));
    assert_eq!(body, "tanh.approx.f32 %r0, %r1;");
}
