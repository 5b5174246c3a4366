//! Integer arithmetic, bit fields, permutations, packed dot products: against plain Rust.

mod common;

use common::{Random, run};

/// Edge cases among random words.
fn inputs(count: usize, seed: u64) -> Vec<u32> {
    let edges = [
        0,
        1,
        2,
        31,
        32,
        33,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            if i % 3 == 0 {
                edges[random.next() as usize % edges.len()]
            } else {
                random.next()
            }
        })
        .collect()
}

const THREADS: usize = 96;

/// Runs one instruction over three input words a thread and compares with `expected`.
fn check(instruction: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let input = inputs(THREADS * 3, 0x5eed);
    let body = format!(
        "ld.global.u32 %r1, [%a]; ld.global.u32 %r2, [%a+384]; ld.global.u32 %r3, [%a+768];
         {instruction}
         st.global.u32 [%d], %r0;"
    );
    let got = run(&body, THREADS as u32, &input, THREADS).unwrap_or_else(|fault| panic!("{fault}"));
    for i in 0..THREADS {
        let (a, b, c) = (input[i], input[i + 96], input[i + 192]);
        let expected = expected(a, b, c);
        assert_eq!(got[i], expected, "{instruction} of {a:#x} {b:#x} {c:#x}");
    }
}

/// The same on 64 bits made of two words: `%rd1`, `%rd2` to `%rd0`.
fn check64(instruction: &str, expected: impl Fn(u64, u64) -> u64) {
    let input = inputs(THREADS * 4, 0x1dea);
    let body = format!(
        "ld.global.u32 %r1, [%a]; ld.global.u32 %r2, [%a+384];
         ld.global.u32 %r3, [%a+768]; ld.global.u32 %r4, [%a+1152];
         mov.b64 %rd1, {{%r1, %r2}}; mov.b64 %rd2, {{%r3, %r4}};
         {instruction}
         mov.b64 {{%r5, %r6}}, %rd0;
         st.global.u32 [%d], %r5; st.global.u32 [%d+384], %r6;"
    );
    let got = run(&body, THREADS as u32, &input, THREADS * 2).unwrap_or_else(|f| panic!("{f}"));
    for i in 0..THREADS {
        let word = |at: usize| u64::from(input[i + at * 96]);
        let (a, b) = (word(0) | word(1) << 32, word(2) | word(3) << 32);
        let result = u64::from(got[i]) | u64::from(got[i + 96]) << 32;
        assert_eq!(result, expected(a, b), "{instruction} of {a:#x} {b:#x}");
    }
}

fn s(x: u32) -> i32 {
    x.cast_signed()
}

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
fn shifts_clamp() {
    check(
        "shl.b32 %r0, %r1, %r2;",
        |a, b, _| if b > 31 { 0 } else { a << b },
    );
    check(
        "shr.u32 %r0, %r1, %r2;",
        |a, b, _| if b > 31 { 0 } else { a >> b },
    );
    check("shr.s32 %r0, %r1, %r2;", |a, b, _| {
        (s(a) >> b.min(31)) as u32
    });
    check64("cvt.u32.u64 %r9, %rd2; shl.b64 %rd0, %rd1, %r9;", |a, b| {
        if b as u32 > 63 { 0 } else { a << (b as u32) }
    });
    check64("cvt.u32.u64 %r9, %rd2; shr.s64 %rd0, %rd1, %r9;", |a, b| {
        ((a as i64) >> (b as u32).min(63)) as u64
    });
    check("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
        let c = c % 32;
        if c == 0 { b } else { b << c | a >> (32 - c) }
    });
    check("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
        let c = c % 32;
        if c == 0 { a } else { a >> c | b << (32 - c) }
    });
    check("shf.l.clamp.b32 %r0, %r1, %r2, %r3;", |a, b, c| match c {
        0 => b,
        1..32 => b << c | a >> (32 - c),
        _ => a,
    });
    check("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", |a, b, c| match c {
        0 => a,
        1..32 => a >> c | b << (32 - c),
        _ => b,
    });
}

#[test]
fn logic_and_bits() {
    check("and.b32 %r0, %r1, %r2;", |a, b, _| a & b);
    check("xor.b32 %r0, %r1, %r2;", |a, b, _| a ^ b);
    check("not.b32 %r0, %r1;", |a, _, _| !a);
    check("cnot.b32 %r0, %r1;", |a, _, _| (a == 0) as u32);
    check("popc.b32 %r0, %r1;", |a, _, _| a.count_ones());
    check("clz.b32 %r0, %r1;", |a, _, _| a.leading_zeros());
    check("brev.b32 %r0, %r1;", |a, _, _| a.reverse_bits());
    check("bfind.u32 %r0, %r1;", |a, _, _| {
        31u32.wrapping_sub(a.leading_zeros())
    });
    check("bfind.s32 %r0, %r1;", |a, _, _| {
        let a = if s(a) < 0 { !a } else { a };
        31u32.wrapping_sub(a.leading_zeros())
    });
    check("bfind.shiftamt.u32 %r0, %r1;", |a, _, _| {
        if a == 0 { !0 } else { a.leading_zeros() }
    });
    // 0xca selects bits of b where a has ones, else of c; 0x96 is the three-way exclusive or.
    check("lop3.b32 %r0, %r1, %r2, %r3, 0xca;", |a, b, c| {
        a & b | !a & c
    });
    check("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", |a, b, c| a ^ b ^ c);
    check64("brev.b64 %rd0, %rd1;", |a, _| a.reverse_bits());
    check64("popc.b64 %r9, %rd1; cvt.u64.u32 %rd0, %r9;", |a, _| {
        a.count_ones() as u64
    });
    check64("clz.b64 %r9, %rd1; cvt.u64.u32 %rd0, %r9;", |a, _| {
        a.leading_zeros() as u64
    });
}

#[test]
fn bit_fields() {
    let field = |a: u32, position: u32, length: u32| {
        (0..length.min(32)).fold(0u64, |out, i| {
            let at = position + i;
            out | u64::from(at < 32 && a >> at & 1 == 1) << i
        }) as u32
    };
    check("bfe.u32 %r0, %r1, %r2, %r3;", |a, b, c| {
        field(a, b & 255, c & 255)
    });
    check("bfe.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
        // The ISA's own definition: the sign is the field's last bit inside the word.
        let (position, length) = (b & 255, c & 255);
        let sign = length != 0 && a >> (position + length - 1).min(31) & 1 == 1;
        (0..32).fold(0, |out, i| {
            let inside = i < length && position + i < 32;
            let bit = if inside {
                a >> (position + i) & 1 == 1
            } else {
                sign
            };
            out | u32::from(bit) << i
        })
    });
    check("bfi.b32 %r0, %r1, %r2, %r3, 5;", |a, b, c| {
        let position = c & 255;
        (0..5).fold(b, |out, i| {
            if position + i > 31 {
                out
            } else {
                out & !(1 << (position + i)) | (a >> i & 1) << (position + i)
            }
        })
    });
    check("bmsk.clamp.b32 %r0, %r1, %r2;", |a, b, _| {
        (0..32)
            .filter(|i| *i >= a && u64::from(*i) < u64::from(a) + u64::from(b))
            .fold(0, |m, i| m | 1 << i)
    });
}

#[test]
fn bit_fields_of_64_bits() {
    let place = "cvt.u32.u64 %r9, %rd2; and.b32 %r10, %r9, 127; shr.u32 %r11, %r9, 25;";
    let fields = |b: u64| (b as u32 & 127, b as u32 >> 25);
    check64(
        &format!("{place} bfe.u64 %rd0, %rd1, %r10, %r11;"),
        |a, b| {
            let (position, length) = fields(b);
            (0..length.min(64)).fold(0, |out, i| {
                let inside = position + i < 64;
                out | u64::from(inside && a >> (position + i) & 1 == 1) << i
            })
        },
    );
    check64(
        &format!("{place} bfe.s64 %rd0, %rd1, %r10, %r11;"),
        |a, b| {
            let (position, length) = fields(b);
            let sign = length != 0 && a >> (position + length - 1).min(63) & 1 == 1;
            (0..64).fold(0, |out, i| {
                let inside = i < length && position + i < 64;
                let bit = if inside {
                    a >> (position + i) & 1 == 1
                } else {
                    sign
                };
                out | u64::from(bit) << i
            })
        },
    );
    check64(
        &format!("{place} bfi.b64 %rd0, %rd1, %rd2, %r10, %r11;"),
        |a, b| {
            let (position, length) = fields(b);
            (0..length.min(64)).fold(b, |out, i| {
                let at = position + i;
                if at > 63 {
                    out
                } else {
                    out & !(1 << at) | (a >> i & 1) << at
                }
            })
        },
    );
}

#[test]
fn permutations() {
    let bytes = |a: u32, b: u32| [a.to_le_bytes(), b.to_le_bytes()].concat();
    check("prmt.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
        let bytes = bytes(a, b);
        (0..4).fold(0, |out, i| {
            let control = c >> (4 * i) & 15;
            let byte = bytes[control as usize & 7];
            let byte = if control & 8 == 0 {
                byte
            } else {
                ((byte as i8) >> 7) as u8
            };
            out | u32::from(byte) << (8 * i)
        })
    });
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        (
            "f4e",
            [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
        ),
        (
            "b4e",
            [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
        ),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        (
            "ecl",
            [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
        ),
        (
            "ecr",
            [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
        ),
        (
            "rc16",
            [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]],
        ),
    ];
    for (mode, table) in modes {
        check(
            &format!("prmt.b32.{mode} %r0, %r1, %r2, %r3;"),
            |a, b, c| {
                let picked = table[c as usize & 3].map(|at| bytes(a, b)[at]);
                u32::from_le_bytes(picked)
            },
        );
    }
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
