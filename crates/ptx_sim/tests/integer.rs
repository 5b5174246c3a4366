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
fn arithmetic_64_and_carries() {
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
    check64(
        "add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4; mov.b64 %rd0, {%r5, %r6};",
        |a, b| a.wrapping_add(b),
    );
    check64(
        "sub.cc.u32 %r5, %r1, %r3; subc.u32 %r6, %r2, %r4; mov.b64 %rd0, {%r5, %r6};",
        |a, b| a.wrapping_sub(b),
    );
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
