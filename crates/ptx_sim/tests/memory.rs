//! Loads, stores and atomics in every space, width and form.

mod common;

use common::{HEAD, launch, params, run, run_text, simulator};
use half::f16;
use ptx_sim::{Config, Memory, Module, Simulator};

#[test]
fn narrow_loads_extend_by_their_type() {
    let got = run(
        "ld.global.u8 %r1, [%in+3]; ld.global.s8 %r2, [%in+3]; ld.global.u16 %r3, [%in+2];
         ld.global.s16 %r4, [%in+2]; ld.global.s8 %h1, [%in+3]; ld.global.b8 %h2, [%in+3];
         ld.global.s32 %rd1, [%in]; ld.global.u32 %rd2, [%in];
         st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};
         st.global.v2.u16 [%out+16], {%h1, %h2};
         shr.u64 %rd1, %rd1, 32; st.global.u32 [%out+20], %rd1;
         shr.u64 %rd2, %rd2, 32; st.global.u32 [%out+24], %rd2;
         mov.u64 %rd3, 0x1122334455667788; st.global.u8 [%out+28], %rd3; st.global.u16 [%out+30], %rd3;
         mov.u16 %h3, 0xab; st.global.u8 [%out+29], %h3;",
        1,
        &[0xf123_4567],
        8,
    )
    .unwrap();
    let expected = [
        0xf1,
        0xffff_fff1,
        0xf123,
        0xffff_f123,
        0x00f1_fff1,
        u32::MAX,
        0,
        0x7788_ab88,
    ];
    assert_eq!(got, expected);
}

#[test]
fn vectors_and_cache_hints() {
    let input: Vec<u32> = (0..64).collect();
    let got = run(
        "mad.wide.u32 %rd1, %t, 16, %in; mad.wide.u32 %rd2, %t, 16, %out;
         ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];
         ld.global.L1::evict_last.v2.b64 {%rd3, %rd4}, [%rd1];
         ldu.global.v2.f32 {%r5, %r6}, [%rd1+8];
         ld.volatile.global.u32 %r7, [%rd1]; ld.relaxed.gpu.global.u32 %r8, [%rd1];
         ld.acquire.sys.global.b32 %r9, [%rd1];
         prefetch.global.L2 [%rd1];
         xor.b32 %r7, %r7, %r8; add.u32 %r9, %r9, %r7;
         mov.b64 {%r10, %r11}, %rd4;
         st.global.cs.v4.b32 [%rd2], {%r9, %r2, %r5, %r11};",
        16,
        &input,
        64,
    )
    .unwrap();
    assert_eq!(got, input);
}

#[test]
fn generic_addresses_reach_every_space() {
    let got = run(
        ".shared .align 8 .b8 s[16]; .local .align 8 .b8 l[16];
         mov.u64 %rd1, s; cvta.shared.u64 %rd2, %rd1; st.u32 [%rd2+4], 11;
         ld.shared.u32 %r1, [s+4];
         mov.u64 %rd3, l; cvta.local.u64 %rd4, %rd3; st.local.u32 [l+8], 22; ld.u32 %r2, [%rd4+8];
         cvta.to.shared.u64 %rd5, %rd2; ld.shared.u32 %r3, [%rd5+4];
         isspacep.shared %p1, %rd2; isspacep.local %p2, %rd4; isspacep.global %p3, %rd2;
         isspacep.global %p4, %in;
         selp.u32 %r4, 1, 0, %p1; selp.u32 %r5, 2, 0, %p2; selp.u32 %r6, 4, 0, %p3;
         selp.u32 %r7, 8, 0, %p4; add.u32 %r4, %r4, %r5; add.u32 %r6, %r6, %r7;
         add.u32 %r4, %r4, %r6;
         mov.b64 %rd6, in; cvta.param.u64 %rd7, %rd6; ld.u64 %rd8, [%rd7]; ld.u32 %r8, [%rd8];
         st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4}; st.global.u32 [%out+16], %r8;",
        1,
        &[99],
        5,
    )
    .unwrap();
    assert_eq!(got, [11, 22, 11, 11, 99]);
}

#[test]
fn module_variables_hold_their_values_between_launches() {
    let text = format!(
        "{HEAD}.global .align 4 .u32 counter = 40;
        .const .align 4 .f32 table[3] = {{1.5, 0f40200000, -3.0}};
        .global .align 8 .u64 pointer[2] = {{generic(table)+4, counter}};
        .extern .shared .align 16 .b8 unsized[];
        .visible .entry test(.param .u64 in, .param .u64 out) {{
            .reg .b32 %r<9>; .reg .b64 %rd<9>;
            ld.param.u64 %rd1, [out];
            atom.global.add.u32 %r1, [counter], 2;
            ld.const.f32 %r2, [table+8];
            mov.u64 %rd2, pointer; ld.global.u64 %rd3, [%rd2]; ld.f32 %r3, [%rd3];
            ld.global.u64 %rd4, [pointer+8]; ld.global.u32 %r4, [%rd4];
            st.global.v4.b32 [%rd1], {{%r1, %r2, %r3, %r4}};
            ret;
        }}"
    );
    let got = run_text(&text, 1, &[], 4).unwrap();
    assert_eq!(got, [40, (-3f32).to_bits(), 2.5f32.to_bits(), 42]);
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let out = memory.alloc(16, "out").unwrap();
    for before in [40u32, 42, 44] {
        simulator()
            .launch(&memory, &module, "test", &launch(1, 1, &params(&[0, out])))
            .unwrap();
        let mut word = [0; 4];
        memory.read(out, &mut word).unwrap();
        assert_eq!(u32::from_le_bytes(word), before);
    }
}

#[test]
fn atomics_of_every_kind() {
    // Each lane applies the operation with its own number; the result must not depend on the order.
    let cases: [(&str, u32, u32); 9] = [
        ("add.u32", 5, 5 + 31 * 16),
        ("min.s32", 5, (-31i32).cast_unsigned()),
        ("max.u32", 7, 31),
        ("and.b32", 0xffff_ffff, 0),
        ("or.b32", 0x100, 0x11f),
        ("xor.b32", 0, 0),
        ("inc.u32", 0, 32),
        ("add.f32", 0.5f32.to_bits(), 496.5f32.to_bits()),
        (
            "add.noftz.f16x2",
            0x3c00,
            u32::from(f16::from_f32(497.0).to_bits()),
        ),
    ];
    for (op, start, end) in cases {
        let operand = match op {
            "min.s32" => "neg.s32 %r2, %t;",
            "inc.u32" => "mov.u32 %r2, 100;",
            "add.f32" => "cvt.rn.f32.u32 %r2, %t;",
            "add.noftz.f16x2" => "cvt.rn.f32.u32 %r3, %t; cvt.rn.f16x2.f32 %r2, 0f00000000, %r3;",
            _ => "mov.u32 %r2, %t;",
        };
        for space in ["global", "shared"] {
            let (prepare, place) = match space {
                "global" => ("st.global.u32 [%out], %r1; bar.sync 0;", "%out"),
                _ => (
                    ".shared .b32 cell; st.shared.u32 [cell], %r1; bar.sync 0;",
                    "cell",
                ),
            };
            let body = format!(
                "mov.u32 %r1, {start}; {operand} {prepare}
                 red.relaxed.cta.{space}.{op} [{place}], %r2;
                 bar.sync 0; ld.{space}.u32 %r4, [{place}]; bar.sync 0; st.global.u32 [%out], %r4;"
            );
            let got = run(&body, 32, &[0], 1).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!(got[0], end, "{op} in {space}");
        }
    }
}

#[test]
fn compare_and_swap_and_exchange() {
    let got = run(
        "st.global.u32 [%out], 3; st.global.u32 [%out+4], 0;
         atom.global.cas.b32 %r1, [%out], 3, 9; atom.global.cas.b32 %r2, [%out], 3, 8;
         atom.global.exch.b32 %r3, [%out], 77;
         st.global.u32 [%out+8], %r1; st.global.u32 [%out+12], %r2; st.global.u32 [%out+16], %r3;
         st.global.v2.u32 [%out+24], {0, 1};
         atom.global.add.u64 %rd1, [%out+24], 0xffffffff; atom.global.max.u64 %rd2, [%out+24], 5;
         st.global.u32 [%out+20], %rd1;",
        1,
        &[0],
        8,
    )
    .unwrap();
    assert_eq!(got, [77, 0, 3, 9, 9, 0, 0xffff_ffff, 1]);
}

#[test]
fn warps_wait_for_each_other_through_memory() {
    // The second warp spins on a flag that the first sets: warps must take turns.
    let got = run(
        ".shared .b32 flag; .shared .b32 data;
         setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [flag], 0; bar.sync 0;
         setp.lt.u32 %p1, %t, 32; @%p1 bra $first;
         $spin: ld.volatile.shared.u32 %r1, [flag]; setp.eq.u32 %p2, %r1, 0; @%p2 bra $spin;
         membar.cta; ld.shared.u32 %r2, [data]; st.global.u32 [%d], %r2; bra.uni $end;
         $first: setp.ne.u32 %p2, %t, 7; @%p2 bra $wait; st.shared.u32 [data], 123; membar.cta;
         st.volatile.shared.u32 [flag], 1;
         $wait: st.global.u32 [%d], %t;
         $end:",
        64,
        &[0],
        64,
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(got[32..], [123; 32]);
}

#[test]
fn blocks_wait_for_each_other_when_they_are_co_resident() {
    let text = common::kernel(
        "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x;
         setp.ne.u32 %p1, %t, 0; @%p1 bra $wait;
         membar.gl; atom.global.add.u32 %r3, [%in], 1;
         $spin: ld.acquire.gpu.global.u32 %r4, [%in]; setp.lt.u32 %p2, %r4, %r2; @%p2 bra $spin;
         $wait: bar.sync 0;
         mad.wide.u32 %rd1, %r1, 4, %out; st.global.u32 [%rd1], %r2;",
    );
    let module = Module::parse(&text).unwrap();
    for threads in [1, 2] {
        let mut memory = Memory::new();
        let (count, out) = (
            memory.alloc(4, "count").unwrap(),
            memory.alloc(40, "out").unwrap(),
        );
        memory.write(count, &[0; 4]).unwrap();
        let config = Config {
            threads,
            co_resident: true,
            ..Config::default()
        };
        let params = params(&[count, out]);
        Simulator::new(config)
            .launch(&memory, &module, "test", &launch(10, 64, &params))
            .unwrap_or_else(|fault| panic!("{fault}"));
        let mut bytes = [0; 40];
        memory.read(out, &mut bytes).unwrap();
        assert!(bytes.chunks_exact(4).all(|word| word == [10, 0, 0, 0]));
    }
}

#[test]
fn named_barriers_hand_over_between_warps() {
    // Producer and consumer, two barriers, counts of both warps.
    let got = run(
        ".shared .b32 slot[32]; mov.u32 %r1, slot; and.b32 %r2, %t, 31; mad.lo.u32 %r3, %r2, 4, %r1;
         mov.u32 %r4, 0; setp.ge.u32 %p1, %t, 32; @%p1 bra $consumer;
         $produce: bar.sync 2, 64; add.u32 %r5, %r4, %r2; st.shared.u32 [%r3], %r5;
         bar.arrive 1, 64; add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 5; @%p2 bra $produce;
         bra.uni $end;
         $consumer: mov.u32 %r6, 0;
         $consume: bar.arrive 2, 64; bar.sync 1, 64; xor.b32 %r7, %r2, 5;
         mad.lo.u32 %r8, %r7, 4, %r1; ld.shared.u32 %r9, [%r8]; add.u32 %r6, %r6, %r9;
         add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 5; @%p2 bra $consume;
         $end: mov.u32 %r10, 0; @%p1 mov.u32 %r10, %r6; st.global.u32 [%d], %r10;",
        64,
        &[0],
        64,
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    let expected: Vec<u32> = (0..32).map(|i| 10 + 5 * (i ^ 5)).collect();
    assert_eq!(got[32..], expected);
}

#[test]
fn barrier_reductions() {
    let got = run(
        "setp.lt.u32 %p1, %t, 40;
         barrier.cta.red.popc.aligned.u32 %r1, 0, %p1;
         barrier.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, !%p1;
         selp.u32 %r2, 100, 0, %p2; selp.u32 %r3, 200, 0, %p3;
         add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; st.global.u32 [%d], %r1;",
        64,
        &[0],
        64,
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(got, [240; 64]);
}
