//! Floating point of every width: against Rust's own arithmetic, the `half` crate and exact bounds.

mod common;

use common::{Random, run};
use half::{bf16, f16};

const THREADS: usize = 128;
const NAN: u32 = 0x7fff_ffff;

/// Singles of all magnitudes, with zeros, infinities, NaNs and subnormals among them.
fn inputs(count: usize, seed: u64) -> Vec<u32> {
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
        -1e-42,
        65504.0,
        65519.0,
        65520.0,
        3e-8,
        255.5,
        -128.5,
        2147483648.0,
    ];
    let mut random = Random(seed);
    (0..count)
        .map(|i| match i % 3 {
            0 => edges[random.next() as usize % edges.len()].to_bits(),
            1 => (random.float() * 100.0).to_bits(),
            _ => (random.float() * 2f32.powi(random.next() as i32 % 40)).to_bits(),
        })
        .collect()
}

fn check_with(instruction: &str, same: impl Fn(u32, [u32; 3]) -> bool) {
    let input = inputs(THREADS * 3, 0xf10a);
    let body = format!(
        "ld.global.b32 %r1, [%a]; ld.global.b32 %r2, [%a+512]; ld.global.b32 %r3, [%a+1024];
         {instruction}
         st.global.b32 [%d], %r0;"
    );
    let got = run(&body, THREADS as u32, &input, THREADS).unwrap_or_else(|fault| panic!("{fault}"));
    for i in 0..THREADS {
        let sources = [input[i], input[i + 128], input[i + 256]];
        let values = sources.map(f32::from_bits);
        assert!(
            same(got[i], sources),
            "{instruction} of {values:?} gave {:#x}",
            got[i]
        );
    }
}

/// Compares bits; a NaN must be the device's.
fn check(instruction: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    check_with(instruction, |got, sources| {
        let [a, b, c] = sources.map(f32::from_bits);
        let expected = expected(a, b, c);
        got == if expected.is_nan() {
            NAN
        } else {
            expected.to_bits()
        }
    });
}

fn check_word(instruction: &str, expected: impl Fn(f32, f32, f32) -> u32) {
    check_with(instruction, |got, sources| {
        let [a, b, c] = sources.map(f32::from_bits);
        got == expected(a, b, c)
    });
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

#[test]
fn single_precision_arithmetic() {
    check("add.rn.f32 %r0, %r1, %r2;", |a, b, _| a + b);
    check("sub.f32 %r0, %r1, %r2;", |a, b, _| a - b);
    check("mul.rn.f32 %r0, %r1, %r2;", |a, b, _| a * b);
    check("div.rn.f32 %r0, %r1, %r2;", |a, b, _| a / b);
    check("fma.rn.f32 %r0, %r1, %r2, %r3;", |a, b, c| a.mul_add(b, c));
    check("mad.rn.f32 %r0, %r1, %r2, %r3;", |a, b, c| a.mul_add(b, c));
    check("sqrt.rn.f32 %r0, %r1;", |a, _, _| a.sqrt());
    check("rcp.rn.f32 %r0, %r1;", |a, _, _| 1.0 / a);
    check_word("neg.f32 %r0, %r1;", |a, _, _| a.to_bits() ^ 0x8000_0000);
    check_word("abs.f32 %r0, %r1;", |a, _, _| a.to_bits() & 0x7fff_ffff);
    check_word("copysign.f32 %r0, %r1, %r2;", |a, b, _| {
        b.to_bits() & 0x7fff_ffff | a.to_bits() & 0x8000_0000
    });
}

#[test]
fn flush_to_zero_and_saturation() {
    check("add.ftz.f32 %r0, %r1, %r2;", |a, b, _| {
        flush(flush(a) + flush(b))
    });
    check("mul.rn.ftz.f32 %r0, %r1, %r2;", |a, b, _| {
        flush(flush(a) * flush(b))
    });
    check("fma.rn.ftz.f32 %r0, %r1, %r2, %r3;", |a, b, c| {
        flush(flush(a).mul_add(flush(b), flush(c)))
    });
    check("add.sat.f32 %r0, %r1, %r2;", |a, b, _| {
        let sum = a + b;
        if sum > 0.0 { sum.min(1.0) } else { 0.0 }
    });
    check_word("neg.ftz.f32 %r0, %r1;", |a, _, _| {
        flush(a).to_bits() ^ 0x8000_0000
    });
}

#[test]
fn directed_rounding_brackets_the_exact_value() {
    let bracket = |name: &str, exact: fn(f64, f64) -> f64| {
        for (mode, lower, upper) in [("rm", true, false), ("rp", false, true)] {
            check_with(
                &format!("{name}.{mode}.f32 %r0, %r1, %r2;"),
                |got, sources| {
                    let [a, b, _] = sources.map(|bits| f64::from(f32::from_bits(bits)));
                    let exact = exact(a, b);
                    let got = f32::from_bits(got);
                    if exact.is_nan() || got.is_nan() {
                        return exact.is_nan() && got.is_nan();
                    }
                    let value = f64::from(got);
                    let near = |neighbour: f32| f64::from(neighbour);
                    // Where double precision is exact enough, the neighbour is on the other side.
                    (!lower || value <= exact || value == exact)
                        && (!upper || value >= exact)
                        && (value == exact
                            || lower && near(got.next_up()) >= exact
                            || upper && near(got.next_down()) <= exact)
                },
            );
        }
    };
    bracket("add", |a, b| a + b);
    bracket("mul", |a, b| a * b);
    bracket("div", |a, b| a / b);
}

#[test]
fn minimum_and_maximum() {
    let number = |a: f32, b: f32, first: bool| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if first => a,
        _ => b,
    };
    let less = |a: f32, b: f32| a < b || a == b && a.is_sign_negative();
    check("min.f32 %r0, %r1, %r2;", |a, b, _| number(a, b, less(a, b)));
    check("max.f32 %r0, %r1, %r2;", |a, b, _| {
        number(a, b, !less(a, b))
    });
    check("max.NaN.f32 %r0, %r1, %r2;", |a, b, _| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            number(a, b, !less(a, b))
        }
    });
}

type Truth = fn(f32, f32) -> bool;

#[test]
#[expect(
    clippy::double_comparisons,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "the negated and paired forms are what NaN is about"
)]
fn ordered_and_unordered_comparisons() {
    let table: [(&str, Truth); 14] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a < b || a > b),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| !(a < b || a > b)),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| !(a >= b)),
        ("leu", |a, b| !(a > b)),
        ("gtu", |a, b| !(a <= b)),
        ("geu", |a, b| !(a < b)),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    for (name, truth) in table {
        check_word(
            &format!("setp.{name}.f32 %p1, %r1, %r2; selp.u32 %r0, 1, 0, %p1;"),
            |a, b, _| u32::from(truth(a, b)),
        );
        let double = format!(
            "cvt.f64.f32 %rd1, %r1; cvt.f64.f32 %rd2, %r2; setp.{name}.f64 %p1, %rd1, %rd2;
             selp.u32 %r0, 1, 0, %p1;"
        );
        check_word(&double, |a, b, _| u32::from(truth(a, b)));
        let half = format!(
            "cvt.rn.f16.f32 %h1, %r1; cvt.rn.f16.f32 %h2, %r2; setp.{name}.f16 %p1, %h1, %h2;
             selp.u32 %r0, 1, 0, %p1;"
        );
        check_word(&half, |a, b, _| {
            u32::from(truth(f16::from_f32(a).to_f32(), f16::from_f32(b).to_f32()))
        });
    }
    check_word(
        "testp.subnormal.f32 %p1, %r1; selp.u32 %r0, 1, 0, %p1;",
        |a, _, _| u32::from(a.is_subnormal()),
    );
}

/// The error allowed to an approximation: half an ulp, as results are rounded once.
fn close(got: u32, exact: f64) -> bool {
    let got = f32::from_bits(got);
    if exact.is_nan() {
        return got.to_bits() == NAN;
    }
    got == exact as f32 && got.is_sign_negative() == (exact as f32).is_sign_negative()
}

#[test]
fn approximations_are_within_half_an_ulp() {
    type Function = fn(f64) -> f64;
    let table: [(&str, Function); 8] = [
        ("ex2.approx.f32", |x| 2f64.powf(x)),
        ("lg2.approx.f32", |x| x.ln() / std::f64::consts::LN_2),
        ("rsqrt.approx.f32", |x| x.sqrt().recip()),
        ("rcp.approx.f32", |x| x.recip()),
        ("sqrt.approx.f32", f64::sqrt),
        ("sin.approx.f32", f64::sin),
        ("cos.approx.f32", f64::cos),
        ("tanh.approx.f32", |x| {
            let growth = (2.0 * x).exp_m1();
            if growth.is_infinite() {
                1.0
            } else {
                growth / (growth + 2.0)
            }
        }),
    ];
    for (name, exact) in table {
        check_with(&format!("{name} %r0, %r1;"), |got, [a, ..]| {
            let exact = exact(f64::from(f32::from_bits(a)));
            // The references above lose some digits of their own near cancellation.
            let got_value = f64::from(f32::from_bits(got));
            close(got, exact) || (got_value - exact).abs() <= exact.abs() * 1e-7 + 1e-16
        });
    }
    check_with("ex2.approx.ftz.f32 %r0, %r1;", |got, [a, ..]| {
        let exact = f64::from(flush(f32::from_bits(a))).exp2();
        close(got, f64::from(flush(exact as f32)))
    });
}

#[test]
fn conversions_to_integers_saturate() {
    check_word("cvt.rzi.s32.f32 %r0, %r1;", |a, _, _| a as i32 as u32);
    check_word("cvt.rzi.u32.f32 %r0, %r1;", |a, _, _| a as u32);
    check_word("cvt.rni.s32.f32 %r0, %r1;", |a, _, _| {
        a.round_ties_even() as i32 as u32
    });
    check_word("cvt.rmi.s32.f32 %r0, %r1;", |a, _, _| {
        a.floor() as i32 as u32
    });
    check_word("cvt.rpi.s32.f32 %r0, %r1;", |a, _, _| {
        a.ceil() as i32 as u32
    });
    check_word("cvt.rzi.u8.f32 %r0, %r1;", |a, _, _| u32::from(a as u8));
    check_word("cvt.rni.s8.f32 %r0, %r1;", |a, _, _| {
        a.round_ties_even() as i8 as i32 as u32
    });
    check_word(
        "cvt.rzi.s64.f32 %rd1, %r1; cvt.u32.u64 %r0, %rd1;",
        |a, _, _| {
            if a.is_nan() { 0 } else { a as i64 as u32 }
        },
    );
    check("cvt.rni.f32.f32 %r0, %r1;", |a, _, _| a.round_ties_even());
    check("cvt.rmi.f32.f32 %r0, %r1;", |a, _, _| a.floor());
    check("cvt.sat.f32.f32 %r0, %r1;", |a, _, _| {
        if a > 0.0 { a.min(1.0) } else { 0.0 }
    });
    check("cvt.rn.f32.s32 %r0, %r1;", |a, _, _| {
        a.to_bits() as i32 as f32
    });
    check("cvt.rn.f32.u32 %r0, %r1;", |a, _, _| a.to_bits() as f32);
    check_with("cvt.rz.f32.u32 %r0, %r1;", |got, [a, ..]| {
        let got = f32::from_bits(got);
        f64::from(got) <= f64::from(a) && f64::from(got.next_up()) > f64::from(a)
    });
}

#[test]
fn conversions_to_halves() {
    let nan16 = |bits: u16, is_nan: bool| if is_nan { 0x7fff } else { u32::from(bits) };
    check_word(
        "cvt.rn.f16.f32 %h0, %r1; cvt.u32.u16 %r0, %h0;",
        |a, _, _| nan16(f16::from_f32(a).to_bits(), a.is_nan()),
    );
    check_word(
        "cvt.rn.bf16.f32 %h0, %r1; cvt.u32.u16 %r0, %h0;",
        |a, _, _| nan16(bf16::from_f32(a).to_bits(), a.is_nan()),
    );
    check_word("cvt.rn.f16x2.f32 %r0, %r1, %r2;", |a, b, _| {
        let one = |x: f32| nan16(f16::from_f32(x).to_bits(), x.is_nan());
        one(a) << 16 | one(b)
    });
    check_word("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", |a, b, _| {
        let one = |x: f32| nan16(bf16::from_f32(x).to_bits(), x.is_nan());
        one(a) << 16 | one(b)
    });
    check_word(
        "cvt.rn.relu.f16.f32 %h0, %r1; cvt.u32.u16 %r0, %h0;",
        |a, _, _| {
            let bits = f16::from_f32(a).to_bits();
            if a.is_nan() {
                0x7fff
            } else if bits & 0x8000 != 0 {
                0
            } else {
                u32::from(bits)
            }
        },
    );
    check_with(
        "cvt.rz.f16.f32 %h0, %r1; cvt.u32.u16 %r0, %h0;",
        |got, [a, ..]| {
            let (a, got) = (f32::from_bits(a), f16::from_bits(got as u16));
            if a.is_nan() {
                return got.is_nan();
            }
            let nearest = f16::from_f32(a);
            got.to_f32().abs() <= a.abs() && (got == nearest || nearest.to_f32().abs() > a.abs())
        },
    );
    check_with("cvt.rna.tf32.f32 %r0, %r1;", |got, [a, ..]| {
        let value = f32::from_bits(a);
        // Adding half of the last place kept rounds ties away from zero.
        if value.is_nan() {
            got == NAN
        } else {
            got == a.wrapping_add(0x1000) & 0xffff_e000 || value.is_infinite() && got == a
        }
    });
    check("cvt.u16.u32 %h0, %r1; cvt.f32.f16 %r0, %h0;", |a, _, _| {
        f16::from_bits(a.to_bits() as u16).to_f32()
    });
    check("cvt.u16.u32 %h0, %r1; cvt.f32.bf16 %r0, %h0;", |a, _, _| {
        bf16::from_bits(a.to_bits() as u16).to_f32()
    });
}

/// Correct rounding by search: the candidate nearest to the exact value, even on ties.
fn nearest_f16(exact: f64) -> u32 {
    if exact.is_nan() {
        return 0x7fff;
    }
    let guess = f16::from_f64(exact);
    u32::from(guess.to_bits())
}

#[test]
fn packed_halves() {
    let pairs = |op: fn(f64, f64, f64) -> f64| {
        move |got: u32, sources: [u32; 3]| {
            (0..2).all(|i| {
                let [a, b, c] =
                    sources.map(|bits| f16::from_bits((bits >> (16 * i)) as u16).to_f64());
                let expected = nearest_f16(op(a, b, c));
                got >> (16 * i) & 0xffff == expected
            })
        }
    };
    check_with("add.f16x2 %r0, %r1, %r2;", pairs(|a, b, _| a + b));
    check_with("sub.rn.f16x2 %r0, %r1, %r2;", pairs(|a, b, _| a - b));
    check_with("mul.f16x2 %r0, %r1, %r2;", pairs(|a, b, _| a * b));
    check_with(
        "fma.rn.f16x2 %r0, %r1, %r2, %r3;",
        pairs(|a, b, c| a * b + c),
    );
    check_with(
        "fma.rn.relu.f16x2 %r0, %r1, %r2, %r3;",
        pairs(|a, b, c| {
            let x = a * b + c;
            if x.is_nan() || x > 0.0 { x } else { 0.0 }
        }),
    );
    check_with("fma.rn.bf16x2 %r0, %r1, %r2, %r3;", |got, sources| {
        (0..2).all(|i| {
            let [a, b, c] = sources.map(|bits| bf16::from_bits((bits >> (16 * i)) as u16).to_f64());
            let exact = a * b + c;
            let expected = if exact.is_nan() {
                0x7fff
            } else {
                u32::from(bf16::from_f64(exact).to_bits())
            };
            got >> (16 * i) & 0xffff == expected
        })
    });
    check_with("max.f16x2 %r0, %r1, %r2;", |got, [a, b, _]| {
        (0..2).all(|i| {
            let (a, b) = (
                f16::from_bits((a >> (16 * i)) as u16),
                f16::from_bits((b >> (16 * i)) as u16),
            );
            let got = f16::from_bits((got >> (16 * i)) as u16);
            match (a.is_nan(), b.is_nan()) {
                (true, true) => got.to_bits() == 0x7fff,
                (true, false) => got == b,
                (false, true) => got == a,
                _ => got == if a > b { a } else { b },
            }
        })
    });
    check_word("neg.f16x2 %r0, %r1;", |a, _, _| a.to_bits() ^ 0x8000_8000);
    check_word("abs.bf16x2 %r0, %r1;", |a, _, _| a.to_bits() & 0x7fff_7fff);
    check_with(
        "cvt.u16.u32 %h1, %r1; ex2.approx.f16 %h0, %h1; cvt.u32.u16 %r0, %h0;",
        |got, [a, ..]| got == nearest_f16(f16::from_bits(a as u16).to_f64().exp2()),
    );
}

#[test]
fn double_precision() {
    let double = |op: &str| {
        format!(
            "cvt.f64.f32 %rd1, %r1; cvt.f64.f32 %rd2, %r2; cvt.f64.f32 %rd3, %r3;
             {op} cvt.rn.f32.f64 %r0, %rd0;"
        )
    };
    let d = f64::from;
    check(&double("add.rn.f64 %rd0, %rd1, %rd2;"), |a, b, _| {
        (d(a) + d(b)) as f32
    });
    check(&double("mul.f64 %rd0, %rd1, %rd2;"), |a, b, _| {
        (d(a) * d(b)) as f32
    });
    check(&double("div.rn.f64 %rd0, %rd1, %rd2;"), |a, b, _| {
        (d(a) / d(b)) as f32
    });
    check(&double("fma.rn.f64 %rd0, %rd1, %rd2, %rd3;"), |a, b, c| {
        d(a).mul_add(d(b), d(c)) as f32
    });
    check(&double("sqrt.rn.f64 %rd0, %rd1;"), |a, _, _| {
        d(a).sqrt() as f32
    });
    check(&double("abs.f64 %rd0, %rd1;"), |a, _, _| a.abs());
}
