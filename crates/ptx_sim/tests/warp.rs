//! Warp operations, matrices, asynchronous copies: against their definitions in the PTX ISA.

mod common;

use common::{HEAD, Random, launch, params, run, simulator};
use half::{bf16, f16};
use ptx_sim::{Memory, Module};

/// The lane that `lane` reads at an offset in a segment of some width, if it is inside.
type Source = fn(usize, usize, usize) -> Option<usize>;

#[test]
fn shuffles_in_every_mode_and_segment() {
    let mut random = Random(3);
    let input = random.words(32);
    // c packs the segment mask above the clamp: whole warp, then segments of 8.
    for (c, width) in [(0x1f, 32usize), (0x181f, 8)] {
        for offset in [0usize, 1, 3, 7, 16] {
            let up = c & !0x1f;
            let modes: [(&str, usize, Source); 4] = [
                ("up", up, |lane, offset, width| {
                    (lane % width >= offset).then(|| lane - offset)
                }),
                ("down", c, |lane, offset, width| {
                    (lane % width + offset < width).then(|| lane + offset)
                }),
                ("bfly", c, |lane, offset, width| {
                    let source = lane ^ offset;
                    (source < lane / width * width + width).then_some(source)
                }),
                ("idx", c, |lane, offset, width| {
                    Some(lane / width * width + offset % width)
                }),
            ];
            for (mode, c, source) in modes {
                let body = format!(
                    "ld.global.u32 %r1, [%a];
                     shfl.sync.{mode}.b32 %r0|%p1, %r1, {offset}, {c}, 0xffffffff;
                     selp.u32 %r2, 1, 0, %p1;
                     st.global.u32 [%d], %r0; st.global.u32 [%d+128], %r2;"
                );
                let got = run(&body, 32, &input, 64).unwrap();
                for lane in 0..32 {
                    let source = source(lane, offset, width);
                    let expected = input[source.unwrap_or(lane)];
                    assert_eq!(
                        got[lane], expected,
                        "{mode} {offset} of {width}, lane {lane}"
                    );
                    assert_eq!(
                        got[lane + 32],
                        u32::from(source.is_some()),
                        "{mode} {offset}"
                    );
                }
            }
        }
    }
}

#[test]
fn votes_matches_and_reductions() {
    let input: Vec<u32> = (0..32).map(|i| i * 7 % 5).collect();
    let got = run(
        "ld.global.u32 %r1, [%a]; setp.eq.u32 %p1, %r1, 0;
         vote.sync.ballot.b32 %r0, %p1, -1; st.global.u32 [%d], %r0;
         vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1;
         vote.sync.uni.pred %p4, !%p2, -1;
         selp.u32 %r2, 1, 0, %p2; selp.u32 %r3, 2, 0, %p3; selp.u32 %r4, 4, 0, %p4;
         or.b32 %r2, %r2, %r3; or.b32 %r2, %r2, %r4; st.global.u32 [%d+128], %r2;
         match.any.sync.b32 %r5, %r1, -1; st.global.u32 [%d+256], %r5;
         match.all.sync.b32 %r6|%p5, %r0, -1; st.global.u32 [%d+384], %r6;
         redux.sync.add.s32 %r7, %r1, -1; st.global.u32 [%d+512], %r7;
         sub.s32 %r8, 2, %r1; redux.sync.min.s32 %r9, %r8, -1; st.global.u32 [%d+640], %r9;
         activemask.b32 %r10; st.global.u32 [%d+768], %r10;",
        32,
        &input,
        224,
    )
    .unwrap();
    let mask = |value: u32| {
        (0..32)
            .filter(|i| input[*i] == value)
            .fold(0u32, |m, i| m | 1 << i)
    };
    for lane in 0..32 {
        assert_eq!(got[lane], mask(0));
        assert_eq!(got[lane + 32], 1 + 4);
        assert_eq!(got[lane + 64], mask(input[lane]));
        assert_eq!(got[lane + 96], u32::MAX);
        assert_eq!(got[lane + 128], input.iter().sum::<u32>());
        assert_eq!(got[lane + 160], (-2i32).cast_unsigned());
        assert_eq!(got[lane + 192], u32::MAX);
    }
}

#[test]
fn lanes_that_parted_meet_at_a_warp_operation() {
    // Half of the lanes come to the shuffle by a longer way; with all lanes as members the others
    // must wait, whether the lanes reconverged before it or not.
    let got = run(
        "setp.lt.u32 %p1, %t, 16; mov.u32 %r1, %t; mov.u32 %r2, 0;
         @%p1 bra $short;
         $loop: add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, %t; @%p2 bra $loop;
         add.u32 %r1, %r1, 100;
         $short:
         shfl.sync.bfly.b32 %r0, %r1, 16, 31, -1; st.global.u32 [%d], %r0;",
        32,
        &[0],
        32,
    )
    .unwrap();
    let expected: Vec<u32> = (0..32)
        .map(|i| if i < 16 { i + 116 } else { i - 16 })
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn special_registers() {
    let text = format!(
        "{HEAD}.visible .entry test(.param .u64 out) {{
            .reg .b32 %r<24>; .reg .b64 %rd<4>;
            ld.param.u64 %rd0, [out];
            mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
            mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y; mov.u32 %r5, %ctaid.x; mov.u32 %r6, %ctaid.y;
            mov.u32 %r7, %nctaid.x; mov.u32 %r8, %nctaid.y;
            mad.lo.u32 %r9, %r2, %r4, %r1; mad.lo.u32 %r9, %r9, %r3, %r0;
            mad.lo.u32 %r10, %r6, %r7, %r5; mad.lo.u32 %r10, %r10, 60, %r9;
            mul.wide.u32 %rd1, %r10, 16; add.s64 %rd1, %rd0, %rd1;
            mov.u32 %r11, %laneid; mov.u32 %r12, %warpid; mov.u32 %r13, %lanemask_lt;
            st.global.v4.u32 [%rd1], {{%r10, %r11, %r12, %r13}};
            ret;
        }}"
    );
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let out = memory.alloc(6 * 60 * 16, "out").unwrap();
    let params = params(&[out]);
    let mut launch = launch(3, 5, &params);
    launch.grid[1] = 2;
    launch.block = [5, 4, 3];
    simulator()
        .launch(&memory, &module, "test", &launch)
        .unwrap();
    let mut bytes = vec![0; 6 * 60 * 16];
    memory.read(out, &mut bytes).unwrap();
    for (i, row) in bytes.chunks_exact(16).enumerate() {
        let word = |at: usize| u32::from_le_bytes(row[4 * at..][..4].try_into().unwrap());
        let thread = i as u32 % 60;
        assert_eq!(word(0), i as u32);
        assert_eq!((word(1), word(2)), (thread % 32, thread / 32));
        assert_eq!(word(3), (1u32 << (thread % 32)) - 1);
    }
}

/// The element of a fragment that lane `lane` holds at `index`: (row, column) for a 16-row operand
/// A whose registers hold `run` elements, per the figures of the PTX ISA.
fn a_element(lane: usize, index: usize, run: usize, k: usize) -> (usize, usize) {
    let row = lane / 4 + if index / run % 2 == 1 { 8 } else { 0 };
    let column = lane % 4 * run + index % run + if index >= 2 * run { k / 2 } else { 0 };
    (row, column)
}

fn b_element(lane: usize, index: usize, run: usize, k: usize) -> (usize, usize) {
    (
        lane % 4 * run + index % run + if index >= run { k / 2 } else { 0 },
        lane / 4,
    )
}

/// Packs a row-major matrix into words of fragments, register by register.
fn fragments(
    registers: usize,
    per_register: usize,
    element: impl Fn(usize, usize) -> u32,
) -> Vec<u32> {
    let bits = 32 / per_register;
    let mut words = Vec::new();
    for register in 0..registers {
        for lane in 0..32 {
            words.push((0..per_register).fold(0u32, |word, part| {
                word | element(lane, register * per_register + part) << (bits * part % 32)
            }));
        }
    }
    words
}

fn mma(shape: &str, types: &str, a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
    let (na, nb, nc) = (a.len() / 32, b.len() / 32, c.len() / 32);
    let mut body = String::new();
    let mut at = 0;
    let mut names = Vec::new();
    for (prefix, count) in [(10, na), (20, nb), (30, nc)] {
        let list: Vec<String> = (0..count).map(|i| format!("%r{}", prefix + i)).collect();
        for name in &list {
            body += &format!("ld.global.b32 {name}, [%a+{}];", 128 * at);
            at += 1;
        }
        names.push(list.join(", "));
    }
    let d: Vec<String> = (0..nc).map(|i| format!("%r{}", 40 + i)).collect();
    body += &format!(
        "mma.sync.aligned.{shape}.row.col.{types} {{{}}}, {{{}}}, {{{}}}, {{{}}};",
        d.join(", "),
        names[0],
        names[1],
        names[2]
    );
    for (i, name) in d.iter().enumerate() {
        body += &format!("st.global.b32 [%d+{}], {name};", 128 * i);
    }
    run(&body, 32, &[a, b, c].concat(), nc * 32).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn matrix_products_of_halves() {
    for (shape, k, bf) in [
        ("m16n8k16", 16, false),
        ("m16n8k16", 16, true),
        ("m16n8k8", 8, false),
        ("m16n8k8", 8, true),
    ] {
        let mut random = Random(11);
        let bits = |x: f32| {
            if bf {
                bf16::from_f32(x).to_bits()
            } else {
                f16::from_f32(x).to_bits()
            }
        };
        let value = |bits: u16| {
            if bf {
                bf16::from_bits(bits).to_f64()
            } else {
                f16::from_bits(bits).to_f64()
            }
        };
        let a: Vec<u16> = (0..16 * k).map(|_| bits(random.float())).collect();
        let b: Vec<u16> = (0..k * 8).map(|_| bits(random.float())).collect();
        let c: Vec<f32> = (0..16 * 8).map(|_| random.float()).collect();
        let a_words = fragments(k / 4, 2, |lane, i| {
            let (row, column) = a_element(lane, i, 2, k);
            u32::from(a[row * k + column])
        });
        let b_words = fragments(k / 8, 2, |lane, i| {
            let (row, column) = b_element(lane, i, 2, k);
            u32::from(b[row * 8 + column])
        });
        let place = |lane: usize, i: usize| (lane / 4 + 8 * (i / 2)) * 8 + lane % 4 * 2 + i % 2;
        let c_words = fragments(4, 1, |lane, i| c[place(lane, i)].to_bits());
        let name = if bf { "bf16" } else { "f16" };
        let d = mma(
            shape,
            &format!("f32.{name}.{name}.f32"),
            &a_words,
            &b_words,
            &c_words,
        );
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (place(lane, i) / 8, place(lane, i) % 8);
                let products = (0..k).map(|j| value(a[row * k + j]) * value(b[j * 8 + column]));
                let exact = f64::from(c[place(lane, i)]) + products.sum::<f64>();
                let got = f64::from(f32::from_bits(d[i * 32 + lane]));
                // One rounding of at most half an ulp of a partial sum below 17, per product.
                assert!(
                    (got - exact).abs() <= k as f64 * 2f64.powi(-20),
                    "{got} {exact}"
                );
            }
        }
    }
}

#[test]
fn matrix_products_of_halves_into_halves() {
    let a = fragments(4, 2, |lane, i| {
        let (row, column) = a_element(lane, i, 2, 16);
        u32::from(f16::from_f32((row as f32 - 7.0) / 4.0 + column as f32 / 8.0).to_bits())
    });
    let b = fragments(2, 2, |lane, i| {
        let (row, column) = b_element(lane, i, 2, 16);
        u32::from(f16::from_f32((row as f32 - column as f32) / 4.0).to_bits())
    });
    let c = fragments(2, 2, |_, _| u32::from(f16::from_f32(0.5).to_bits()));
    let d = mma("m16n8k16", "f16.f16.f16.f16", &a, &b, &c);
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            let sum: f64 = (0..16)
                .map(|k| {
                    ((row as f64 - 7.0) / 4.0 + k as f64 / 8.0) * (k as f64 - column as f64) / 4.0
                })
                .sum();
            let expected = f16::from_f64(sum + 0.5).to_bits();
            assert_eq!((d[i / 2 * 32 + lane] >> (16 * (i % 2))) as u16, expected);
        }
    }
}

#[test]
fn matrix_products_of_bytes_are_exact() {
    for (shape, k) in [("m16n8k32", 32), ("m16n8k16", 16)] {
        for (a_name, b_name) in [("s8", "s8"), ("u8", "s8"), ("s8", "u8"), ("u8", "u8")] {
            let mut random = Random(13);
            let a: Vec<u8> = (0..16 * k).map(|_| random.next() as u8).collect();
            let b: Vec<u8> = (0..k * 8).map(|_| random.next() as u8).collect();
            let value = |byte: u8, name: &str| {
                if name == "s8" {
                    i32::from(byte.cast_signed())
                } else {
                    i32::from(byte)
                }
            };
            let a_words = fragments(k / 8, 4, |lane, i| {
                let (row, column) = a_element(lane, i, 4, k);
                u32::from(a[row * k + column])
            });
            let b_words = fragments(k / 16, 4, |lane, i| {
                let (row, column) = b_element(lane, i, 4, k);
                u32::from(b[row * 8 + column])
            });
            let c = fragments(4, 1, |lane, i| (lane * 4 + i) as u32);
            let types = format!("s32.{a_name}.{b_name}.s32");
            let d = mma(shape, &types, &a_words, &b_words, &c);
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                    let sum: i32 = (0..k)
                        .map(|j| value(a[row * k + j], a_name) * value(b[j * 8 + column], b_name))
                        .sum();
                    assert_eq!(d[i * 32 + lane].cast_signed(), sum + (lane * 4 + i) as i32);
                }
            }
        }
    }
}

#[test]
fn matrix_products_of_tf32() {
    let a = fragments(4, 1, |lane, i| {
        let (row, column) = a_element(lane, i, 1, 8);
        (row as f32 - column as f32 * 0.5).to_bits()
    });
    let b = fragments(2, 1, |lane, i| {
        let (row, column) = b_element(lane, i, 1, 8);
        (row as f32 * 0.25 + column as f32).to_bits()
    });
    let d = mma("m16n8k8", "f32.tf32.tf32.f32", &a, &b, &[0; 128]);
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            let sum: f32 = (0..8)
                .map(|k| (row as f32 - k as f32 * 0.5) * (k as f32 * 0.25 + column as f32))
                .sum();
            assert_eq!(f32::from_bits(d[i * 32 + lane]), sum);
        }
    }
}

#[test]
fn matrix_loads_and_stores() {
    let input: Vec<u32> = (0..128u32).map(|i| (2 * i) | (2 * i + 1) << 16).collect();
    for (transposed, suffix) in [(false, ""), (true, ".trans")] {
        // Four 8×8 matrices lie one after the other, a row of 16 bytes for each lane.
        let body = format!(
            ".shared .align 16 .b8 tile[512];
             mad.wide.u32 %rd1, %t, 12, %a; mul.lo.u32 %r1, %t, 16;
             mov.u32 %r2, tile; add.u32 %r3, %r2, %r1;
             ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd1];
             st.shared.v4.u32 [%r3], {{%r4, %r5, %r6, %r7}};
             bar.warp.sync -1;
             ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r3];
             st.global.u32 [%d], %r10; st.global.u32 [%d+128], %r11;
             st.global.u32 [%d+256], %r12; st.global.u32 [%d+384], %r13;
             bar.warp.sync -1;
             stmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 [%r3], {{%r10, %r11, %r12, %r13}};
             bar.warp.sync -1;
             ld.shared.v4.u32 {{%r14, %r15, %r16, %r17}}, [%r3];
             mad.wide.u32 %rd2, %t, 12, %d;
             st.global.v4.u32 [%rd2+512], {{%r14, %r15, %r16, %r17}};"
        );
        let got = run(&body, 32, &input, 256).unwrap_or_else(|fault| panic!("{fault}"));
        let element = |matrix: u32, row: u32, column: u32| matrix * 64 + row * 8 + column;
        for matrix in 0..4 {
            for lane in 0..32 {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let expected = if transposed {
                    element(matrix, column, row) | element(matrix, column + 1, row) << 16
                } else {
                    element(matrix, row, column) | element(matrix, row, column + 1) << 16
                };
                assert_eq!(got[(matrix * 32 + lane) as usize], expected);
            }
        }
        assert_eq!(got[128..], input);
    }
}

#[test]
fn asynchronous_copies_land_in_groups() {
    let input: Vec<u32> = (0..96).collect();
    let got = run(
        ".shared .align 16 .b8 buffer[1024];
         mov.u32 %r1, buffer; mad.lo.u32 %r2, %t, 4, %r1;
         cp.async.ca.shared.global [%r2], [%a], 4; cp.async.commit_group;
         cp.async.ca.shared.global.L2::128B [%r2+128], [%a+128], 4, 2; cp.async.commit_group;
         { .reg .b64 p; createpolicy.fractional.L2::evict_first.b64 p, 1.0;
           cp.async.ca.shared.global.L2::cache_hint.L2::128B [%r2+256], [%a+256], 4, 0, p; }
         cp.async.wait_group 1;
         ld.shared.u32 %r3, [%r2]; st.global.u32 [%d], %r3;
         cp.async.wait_group 0;
         ld.shared.u32 %r3, [%r2+128]; st.global.u32 [%d+128], %r3;
         cp.async.wait_all;
         ld.shared.u32 %r3, [%r2+256]; st.global.u32 [%d+256], %r3;",
        32,
        &input,
        96,
    )
    .unwrap();
    // The second copies two of four bytes, the third none: the rest is zero.
    let expected: Vec<u32> = (0..96)
        .map(|i| {
            if i < 32 {
                i
            } else if i < 64 {
                i & 0xffff
            } else {
                0
            }
        })
        .collect();
    assert_eq!(got, expected);
}
