//! Shifts, logic, bit fields, permutations: against plain Rust.

mod common;

use common::words::{check, check64, s};

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
