//! Integer arithmetic, packed dot products, conversions, comparisons: against plain Rust.

mod common;

use common::words::{check, check64, s};

#[test]
fn arithmetic_32() {
    check("add.s32 %r0, %r1, %r2;", |a, b, _| a.wrapping_add(b));
    check("sub.u32 %r0, %r1, %r2;", |a, b, _| a.wrapping_sub(b));
    check("add.sat.s32 %r0, %r1, %r2;", |a, b, _| {
        s(a).saturating_add(s(b)) as u32
    });
    check("sub.sat.s32 %r0, %r1, %r2;", |a, b, _| {
        s(a).saturating_sub(s(b)) as u32
    });
    check("mul.lo.s32 %r0, %r1, %r2;", |a, b, _| a.wrapping_mul(b));
    check("mul.hi.u32 %r0, %r1, %r2;", |a, b, _| {
        ((a as u64 * b as u64) >> 32) as u32
    });
    check("mul.hi.s32 %r0, %r1, %r2;", |a, b, _| {
        ((s(a) as i64 * s(b) as i64) >> 32) as u32
    });
    check("mad.lo.u32 %r0, %r1, %r2, %r3;", |a, b, c| {
        a.wrapping_mul(b).wrapping_add(c)
    });
    check("mad.hi.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        (((s(a) as i64 * s(b) as i64) >> 32) as u32).wrapping_add(c)
    });
    check("mul24.lo.u32 %r0, %r1, %r2;", |a, b, _| {
        (a << 8 >> 8).wrapping_mul(b << 8 >> 8)
    });
    check("min.s32 %r0, %r1, %r2;", |a, b, _| s(a).min(s(b)) as u32);
    check("max.u32 %r0, %r1, %r2;", |a, b, _| a.max(b));
    check("neg.s32 %r0, %r1;", |a, _, _| 0u32.wrapping_sub(a));
    check("abs.s32 %r0, %r1;", |a, _, _| s(a).wrapping_abs() as u32);
    check("sad.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        c.wrapping_add((s(a) as i64 - s(b) as i64).unsigned_abs() as u32)
    });
}

#[test]
fn division_by_zero_has_the_device_results() {
    check("div.u32 %r0, %r1, %r2;", |a, b, _| {
        a.checked_div(b).unwrap_or(u32::MAX)
    });
    check("rem.u32 %r0, %r1, %r2;", |a, b, _| {
        a.checked_rem(b).unwrap_or(u32::MAX)
    });
    check("div.s32 %r0, %r1, %r2;", |a, b, _| {
        if b == 0 {
            u32::MAX
        } else {
            s(a).wrapping_div(s(b)) as u32
        }
    });
    check("rem.s32 %r0, %r1, %r2;", |a, b, _| {
        if b == 0 {
            u32::MAX
        } else {
            s(a).wrapping_rem(s(b)) as u32
        }
    });
    check64("div.u64 %rd0, %rd1, %rd2;", |a, b| {
        a.checked_div(b).unwrap_or(u64::MAX)
    });
    check64("rem.s64 %rd0, %rd1, %rd2;", |a, b| {
        if b == 0 {
            a
        } else {
            (a as i64).wrapping_rem(b as i64) as u64
        }
    });
}

#[test]
fn dot_products_in_every_sign() {
    let byte = |x: u32, i: usize, signed: bool| {
        let byte = x.to_le_bytes()[i];
        if signed {
            byte as i8 as i64
        } else {
            byte as i64
        }
    };
    let half = |x: u32, i: usize, signed: bool| {
        let half = (x >> (16 * i)) as u16;
        if signed {
            half as i16 as i64
        } else {
            half as i64
        }
    };
    for (x, x_signed) in [("u32", false), ("s32", true)] {
        for (y, y_signed) in [("u32", false), ("s32", true)] {
            check(&format!("dp4a.{x}.{y} %r0, %r1, %r2, %r3;"), |a, b, c| {
                let sum: i64 = (0..4)
                    .map(|i| byte(a, i, x_signed) * byte(b, i, y_signed))
                    .sum();
                (i64::from(c) + sum) as u32
            });
            for (part, first) in [("lo", 0), ("hi", 2)] {
                check(
                    &format!("dp2a.{part}.{x}.{y} %r0, %r1, %r2, %r3;"),
                    |a, b, c| {
                        let sum: i64 = (0..2)
                            .map(|i| half(a, i, x_signed) * byte(b, first + i, y_signed))
                            .sum();
                        (i64::from(c) + sum) as u32
                    },
                );
            }
        }
    }
}

#[test]
fn arithmetic_64() {
    check64("add.s64 %rd0, %rd1, %rd2;", |a, b| a.wrapping_add(b));
    check64("mul.lo.u64 %rd0, %rd1, %rd2;", |a, b| a.wrapping_mul(b));
    check64("mul.hi.u64 %rd0, %rd1, %rd2;", |a, b| {
        ((a as u128 * b as u128) >> 64) as u64
    });
    check64("mul.hi.s64 %rd0, %rd1, %rd2;", |a, b| {
        ((a as i64 as i128 * b as i64 as i128) >> 64) as u64
    });
    check64("mad.lo.s64 %rd0, %rd1, %rd2, %rd1;", |a, b| {
        a.wrapping_mul(b).wrapping_add(a)
    });
    check64("min.s64 %rd0, %rd1, %rd2;", |a, b| {
        (a as i64).min(b as i64) as u64
    });
    check64("abs.s64 %rd0, %rd1;", |a, _| {
        (a as i64).wrapping_abs() as u64
    });
    check64("mul.wide.u32 %rd0, %r1, %r3;", |a, b| {
        (a as u32 as u64) * (b as u32 as u64)
    });
    check64("mul.wide.s32 %rd0, %r1, %r3;", |a, b| {
        (a as i32 as i64 * b as i32 as i64) as u64
    });
    check64("mad.wide.s32 %rd0, %r1, %r3, %rd2;", |a, b| {
        (a as i32 as i64 * b as i32 as i64).wrapping_add(b as i64) as u64
    });
    check64("sad.s64 %rd0, %rd1, %rd2, %rd1;", |a, b| {
        (a as i64).abs_diff(b as i64).wrapping_add(a)
    });
    check64("sad.u64 %rd0, %rd1, %rd2, %rd2;", |a, b| {
        a.abs_diff(b).wrapping_add(b)
    });
}

#[test]
fn products_of_24_bits() {
    let unsigned = |x: u32| u64::from(x & 0xff_ffff);
    let signed = |x: u32| i64::from(s(x << 8) >> 8);
    check("mul24.lo.s32 %r0, %r1, %r2;", |a, b, _| {
        (signed(a) * signed(b)) as u32
    });
    check("mul24.hi.u32 %r0, %r1, %r2;", |a, b, _| {
        ((unsigned(a) * unsigned(b)) >> 16) as u32
    });
    check("mul24.hi.s32 %r0, %r1, %r2;", |a, b, _| {
        ((signed(a) * signed(b)) >> 16) as u32
    });
    check("mad24.lo.u32 %r0, %r1, %r2, %r3;", |a, b, c| {
        ((unsigned(a) * unsigned(b)) as u32).wrapping_add(c)
    });
    check("mad24.hi.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        (((signed(a) * signed(b)) >> 16) as u32).wrapping_add(c)
    });
    check("mad24.hi.sat.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        s(((signed(a) * signed(b)) >> 16) as u32).saturating_add(s(c)) as u32
    });
    check("mad.hi.sat.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        s(((s(a) as i64 * s(b) as i64) >> 32) as u32).saturating_add(s(c)) as u32
    });
}

/// Every instruction adds; a difference adds the complement and the carry, or the complement and one.
#[test]
fn carries_pass_between_every_two_instructions() {
    // Results of 33 bits.
    let low = |op: &str, a: u32, b: u32| match op {
        "add" => u64::from(a) + u64::from(b),
        "sub" => u64::from(a) + u64::from(!b) + 1,
        "mad.lo" => u64::from(a.wrapping_mul(b)) + u64::from(a),
        _ => ((u64::from(a) * u64::from(b)) >> 32) + u64::from(a),
    };
    let high = |op: &str, a: u32, b: u32, carry: u64| match op {
        "addc" => low("add", a, b) + carry,
        "subc" => low("sub", a, b) - 1 + carry,
        "madc.lo" => low("mad.lo", a, b) + carry,
        _ => low("mad.hi", a, b) + carry,
    };
    let third = |op: &str| if op.starts_with('m') { ", %r1" } else { "" };
    for first in ["add", "sub", "mad.lo", "mad.hi"] {
        for second in ["addc", "subc", "madc.lo", "madc.hi"] {
            for last in ["addc", "subc", "madc.lo", "madc.hi"] {
                let chain = format!(
                    "{first}.cc.u32 %r5, %r1, %r2{}; {second}.cc.u32 %r5, %r1, %r2{};
                     {last}.u32 %r6, %r1, %r2{}; xor.b32 %r0, %r5, %r6;",
                    third(first),
                    third(second),
                    third(last)
                );
                check(&chain, |a, b, _| {
                    let middle = high(second, a, b, low(first, a, b) >> 32);
                    middle as u32 ^ high(last, a, b, middle >> 32) as u32
                });
            }
        }
    }
    check(
        "mad.hi.cc.s32 %r5, %r1, %r2, %r3; addc.u32 %r0, %r5, 0;",
        |a, b, c| {
            let product = ((i64::from(s(a)) * i64::from(s(b))) >> 32) as u32;
            let (sum, carry) = product.overflowing_add(c);
            sum.wrapping_add(carry.into())
        },
    );
}

#[test]
fn carries_of_64_bits() {
    check64(
        "add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4; mov.b64 %rd0, {%r5, %r6};",
        |a, b| a.wrapping_add(b),
    );
    check64(
        "sub.cc.u32 %r5, %r1, %r3; subc.u32 %r6, %r2, %r4; mov.b64 %rd0, {%r5, %r6};",
        |a, b| a.wrapping_sub(b),
    );
    check64(
        "add.cc.u64 %rd3, %rd1, %rd2; addc.u64 %rd0, %rd2, %rd1;",
        |a, b| {
            let carry = u64::from(a.checked_add(b).is_none());
            b.wrapping_add(a).wrapping_add(carry)
        },
    );
    check64(
        "sub.cc.s64 %rd3, %rd1, %rd2; subc.s64 %rd0, %rd2, %rd1;",
        |a, b| b.wrapping_sub(a).wrapping_sub(u64::from(a < b)),
    );
    check64(
        "mad.lo.cc.u64 %rd3, %rd1, %rd2, %rd1; madc.hi.u64 %rd0, %rd1, %rd2, %rd2;",
        |a, b| {
            let product = u128::from(a) * u128::from(b);
            let sum = product + u128::from(a);
            ((sum >> 64) as u64).wrapping_add(b)
        },
    );
}

#[test]
fn a_carry_that_nothing_made_is_undefined() {
    let fault = common::run(
        "addc.u32 %r1, %t, 1; st.global.u32 [%d], %r1;",
        32,
        &[0],
        32,
    );
    let text = fault.expect_err("CC.CF was never set").to_string();
    assert!(text.contains("CC.CF") || text.contains("%r1"), "{text}");
}

#[test]
fn sixteen_bits_wrap_at_sixteen() {
    let low = |x: u32| x as u16;
    let wrap = |op: &str| {
        format!(
            "cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; cvt.u16.u32 %h3, %r3;
             {op} cvt.u32.u16 %r0, %h0;"
        )
    };
    check(&wrap("add.s16 %h0, %h1, %h2;"), |a, b, _| {
        low(a).wrapping_add(low(b)) as u32
    });
    check(&wrap("mul.lo.u16 %h0, %h1, %h2;"), |a, b, _| {
        low(a).wrapping_mul(low(b)) as u32
    });
    check(&wrap("mul.hi.s16 %h0, %h1, %h2;"), |a, b, _| {
        ((low(a) as i16 as i32 * low(b) as i16 as i32) >> 16) as u16 as u32
    });
    check(&wrap("mad.lo.s16 %h0, %h1, %h2, %h3;"), |a, b, c| {
        low(a).wrapping_mul(low(b)).wrapping_add(low(c)) as u32
    });
    check(&wrap("shr.s16 %h0, %h1, %r2;"), |a, b, _| {
        (low(a) as i16 >> b.min(15)) as u16 as u32
    });
    check(&wrap("shl.b16 %h0, %h1, %r2;"), |a, b, _| {
        if b > 15 { 0 } else { (low(a) << b) as u32 }
    });
    check(&wrap("max.s16 %h0, %h1, %h2;"), |a, b, _| {
        (low(a) as i16).max(low(b) as i16) as u16 as u32
    });
    check(&wrap("div.s16 %h0, %h1, %h2;"), |a, b, _| {
        let (a, b) = (low(a) as i16, low(b) as i16);
        if b == 0 {
            0xffff
        } else {
            a.wrapping_div(b) as u16 as u32
        }
    });
    check(
        "cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; mul.wide.s16 %r0, %h1, %h2;",
        |a, b, _| (low(a) as i16 as i32 * low(b) as i16 as i32) as u32,
    );
}

#[test]
fn integer_conversions() {
    check("cvt.s32.s8 %r0, %r1;", |a, _, _| a as i8 as i32 as u32);
    check("cvt.u32.u8 %r0, %r1;", |a, _, _| a as u8 as u32);
    check("cvt.sat.u8.s32 %r0, %r1;", |a, _, _| {
        s(a).clamp(0, 255) as u32
    });
    check("cvt.sat.s8.s32 %r0, %r1;", |a, _, _| {
        s(a).clamp(-128, 127) as u32
    });
    check(
        "cvt.sat.u16.u32 %h0, %r1; cvt.u32.u16 %r0, %h0;",
        |a, _, _| a.min(65535),
    );
    check("cvt.s16.s8 %h0, %r1; cvt.s32.s16 %r0, %h0;", |a, _, _| {
        a as i8 as i32 as u32
    });
    check("cvt.pack.sat.s8.s32.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
        let clamp = |x: u32| s(x).clamp(-128, 127) as u8 as u32;
        c << 16 | clamp(a) << 8 | clamp(b)
    });
    check("cvt.pack.sat.u16.s32 %r0, %r1, %r2;", |a, b, _| {
        let clamp = |x: u32| s(x).clamp(0, 65535) as u32;
        clamp(a) << 16 | clamp(b)
    });
    check64("cvt.s64.s32 %rd0, %r1;", |a, _| a as i32 as i64 as u64);
    check64(
        "cvt.sat.s32.s64 %r9, %rd1; cvt.s64.s32 %rd0, %r9;",
        |a, _| (a as i64).clamp(i32::MIN as i64, i32::MAX as i64) as u64,
    );
}

#[test]
fn vectors_pack_and_unpack() {
    check(
        "mov.b32 {%h0, %h1}, %r1; mov.b32 %r0, {%h1, %h0};",
        |a, _, _| a.rotate_left(16),
    );
    check(
        "{ .reg .b8 %b<4>; mov.b32 {%b0, %b1, %b2, %b3}, %r1; mov.b32 %r0, {%b3, %b2, %b1, %b0}; }",
        |a, _, _| a.swap_bytes(),
    );
    check("mov.b32 {_, %h1}, %r1; cvt.u32.u16 %r0, %h1;", |a, _, _| {
        a >> 16
    });
    check64(
        "mov.b64 {%h0, %h1, %h2, %h3}, %rd1; mov.b64 %rd0, {%h3, %h2, %h1, %h0};",
        |a, _| {
            let [p, q, r, s] = [0, 16, 32, 48].map(|shift| a >> shift & 0xffff);
            p << 48 | q << 32 | r << 16 | s
        },
    );
}

#[test]
fn comparisons_and_selection() {
    type Truth = fn(u32, u32) -> bool;
    let pairs: [(&str, Truth); 12] = [
        ("eq.s32", |a, b| a == b),
        ("ne.u32", |a, b| a != b),
        ("lt.s32", |a, b| (a as i32) < b as i32),
        ("le.s32", |a, b| a as i32 <= b as i32),
        ("gt.s32", |a, b| a as i32 > b as i32),
        ("ge.s32", |a, b| a as i32 >= b as i32),
        ("lt.u32", |a, b| a < b),
        ("lo.u32", |a, b| a < b),
        ("ls.u32", |a, b| a <= b),
        ("hi.u32", |a, b| a > b),
        ("hs.u32", |a, b| a >= b),
        ("ge.u32", |a, b| a >= b),
    ];
    for (name, truth) in pairs {
        check(
            &format!("setp.{name} %p1, %r1, %r2; selp.b32 %r0, 7, %r3, %p1;"),
            |a, b, c| {
                if truth(a, b) { 7 } else { c }
            },
        );
        check(
            &format!("set.{}.u32.{} %r0, %r1, %r2;", &name[..2], &name[3..]),
            |a, b, _| {
                if truth(a, b) { u32::MAX } else { 0 }
            },
        );
    }
    // The second predicate is the negated comparison combined in the same way.
    check(
        "setp.gt.u32 %p3, %r3, 1000; setp.lt.and.u32 %p1|%p2, %r1, %r2, !%p3;
         selp.b32 %r4, 1, 0, %p1; selp.b32 %r5, 2, 0, %p2; or.b32 %r0, %r4, %r5;",
        |a, b, c| {
            let free = c <= 1000;
            u32::from(a < b && free) + 2 * u32::from(a >= b && free)
        },
    );
    check("slct.b32.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        if s(c) >= 0 { a } else { b }
    });
    check(
        "setp.lt.u32 %p1, %r1, %r2; setp.lt.u32 %p2, %r2, %r3; xor.pred %p3, %p1, %p2;
         not.pred %p4, %p3; selp.b32 %r0, 1, 0, %p4;",
        |a, b, c| u32::from((a < b) == (b < c)),
    );
    check64(
        "setp.lt.s64 %p1, %rd1, %rd2; selp.b64 %rd0, %rd1, %rd2, %p1;",
        |a, b| {
            if (a as i64) < b as i64 { a } else { b }
        },
    );
}
