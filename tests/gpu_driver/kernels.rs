//! Small hand-written kernels, for Ampere and, with a programmatic dependency, for Hopper.

use hyperion::ptx::{PtxImage, PtxText};

macro_rules! kernels {
    ($arch:literal, $wait:literal) => {
        concat!(
            ".version 7.8\n.target ",
            $arch,
            "\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];\n",
            // y[i] += a * x[i]
            ".visible .entry saxpy(
                .param .u64 saxpy_x, .param .u64 saxpy_y, .param .f32 saxpy_a, .param .u32 saxpy_n
            )
            {
                .reg .pred %p<2>; .reg .b32 %r<5>; .reg .f32 %f<5>; .reg .b64 %rd<8>;
                mov.u32 %r1, %ctaid.x;
                mov.u32 %r2, %ntid.x;
                mov.u32 %r3, %tid.x;
                mad.lo.s32 %r4, %r1, %r2, %r3;
                ld.param.u32 %r1, [saxpy_n];
                setp.ge.u32 %p1, %r4, %r1;
                @%p1 bra $L_saxpy_end;
                ld.param.u64 %rd1, [saxpy_x];
                ld.param.u64 %rd2, [saxpy_y];
                ld.param.f32 %f1, [saxpy_a];
                cvta.to.global.u64 %rd3, %rd1;
                cvta.to.global.u64 %rd4, %rd2;
                mul.wide.u32 %rd5, %r4, 4;
                add.s64 %rd6, %rd3, %rd5;
                add.s64 %rd7, %rd4, %rd5;
                ld.global.f32 %f2, [%rd6];
                ld.global.f32 %f3, [%rd7];
                fma.rn.f32 %f4, %f1, %f2, %f3;
                st.global.f32 [%rd7], %f4;
            $L_saxpy_end:
                ret;
            }\n",
            // v[i] = 3 v[i] + 1: applied in any other order or number, the result differs.
            ".visible .entry advance(.param .u64 advance_v)
            {
                .reg .b32 %r<7>; .reg .b64 %rd<5>;
                mov.u32 %r1, %ctaid.x;
                mov.u32 %r2, %ntid.x;
                mov.u32 %r3, %tid.x;
                mad.lo.s32 %r4, %r1, %r2, %r3;
                ld.param.u64 %rd1, [advance_v];
                cvta.to.global.u64 %rd2, %rd1;
                mul.wide.u32 %rd3, %r4, 4;
                add.s64 %rd4, %rd2, %rd3;\n",
            $wait,
            "
                ld.global.u32 %r5, [%rd4];
                mad.lo.s32 %r6, %r5, 3, 1;
                st.global.u32 [%rd4], %r6;
                ret;
            }\n",
            // out[t] = 1023 - t, through dynamic shared memory at 64 bytes a thread.
            ".visible .entry reverse(.param .u64 reverse_out)
            {
                .reg .b32 %r<9>; .reg .b64 %rd<5>;
                mov.u32 %r1, %tid.x;
                mov.u32 %r2, dynamic;
                shl.b32 %r3, %r1, 6;
                add.s32 %r4, %r2, %r3;
                st.shared.u32 [%r4], %r1;
                bar.sync 0;
                sub.s32 %r5, 1023, %r1;
                shl.b32 %r6, %r5, 6;
                add.s32 %r7, %r2, %r6;
                ld.shared.u32 %r8, [%r7];
                ld.param.u64 %rd1, [reverse_out];
                cvta.to.global.u64 %rd2, %rd1;
                mul.wide.u32 %rd3, %r1, 4;
                add.s64 %rd4, %rd2, %rd3;
                st.global.u32 [%rd4], %r8;
                ret;
            }\n"
        )
    };
}

/// The kernels `saxpy`, `advance` and `reverse`.
pub const IMAGES: &[PtxImage] = &[
    PtxImage {
        arch: 80,
        text: PtxText::Plain(kernels!("sm_80", "")),
    },
    PtxImage {
        arch: 90,
        text: PtxText::Plain(kernels!("sm_90", "griddepcontrol.wait;")),
    },
];

/// What no compiler accepts, with an entry that can be read.
pub const BROKEN: &[PtxImage] = &[PtxImage {
    arch: 80,
    text: PtxText::Plain(
        ".version 7.0\n.target sm_80\n.address_size 64\n\
           .visible .entry broken(.param .u64 p) { .reg .b32 %r<3>; frobnicate.u32 %r1, %r2; ret; }\n",
    ),
}];
