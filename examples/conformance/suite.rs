//! The cases, and how a device runs them.

use anyhow::{Context, Result};
use hyperion::device::{Device, Launch};

use crate::compare::Comparison;

/// Threads of a case: one block.
pub const THREADS: usize = 256;
/// Bytes of each thread's own place in shared and in global memory.
const PLACE: usize = 16;
/// What the kernels find as a parameter.
const NUMBER: u64 = 0x0123_4567_89ab_cdef;

/// A line of `cases.txt`.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How results compare.
    pub comparison: Comparison,
    /// The instructions.
    pub body: &'static str,
}

/// All cases.
///
/// # Errors
/// A line that does not begin with a comparison.
pub fn cases() -> Result<Vec<Case>> {
    let lines = include_str!("cases.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (comparison, body) = Comparison::parse(line).with_context(|| line.to_owned())?;
            Ok(Case { comparison, body })
        })
        .collect()
}

/// The name of a case's kernel.
fn name(index: usize) -> String {
    format!("case_{index}")
}

/// A kernel for each case.
pub fn ptx(cases: &[Case]) -> String {
    let mut text = format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.shared .align 16 .b8 places[{}];\n",
        THREADS * PLACE
    );
    for (index, case) in cases.iter().enumerate() {
        text += &kernel(&name(index), case.body);
    }
    text
}

/// Thread t reads words t, t + 256 and t + 512 of the inputs, and writes words t and t + 256.
fn kernel(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(
	.param .u64 p_in,
	.param .u64 p_out,
	.param .u64 p_places,
	.param .u64 p_number
)
{{
	.reg .pred %p<4>;
	.reg .b16 %h<4>;
	.reg .b32 %r<8>;
	.reg .b64 %rd<4>;
	.reg .b64 %in, %out, %g;
	.reg .b32 %t, %s;
	mov.u32 %t, %tid.x;
	ld.param.b64 %in, [p_in];
	ld.param.b64 %out, [p_out];
	ld.param.b64 %g, [p_places];
	mad.wide.u32 %in, %t, 4, %in;
	mad.wide.u32 %out, %t, 4, %out;
	mad.wide.u32 %g, %t, {PLACE}, %g;
	mov.u32 %s, places;
	mad.lo.u32 %s, %t, {PLACE}, %s;
	ld.global.b32 %r1, [%in];
	ld.global.b32 %r2, [%in+1024];
	ld.global.b32 %r3, [%in+2048];
	cvt.u16.u32 %h1, %r1;
	cvt.u16.u32 %h2, %r2;
	cvt.u16.u32 %h3, %r3;
	mov.b64 %rd1, {{%r1, %r2}};
	mov.b64 %rd2, {{%r2, %r3}};
	mov.b64 %rd3, {{%r3, %r1}};
	setp.lt.u32 %p1, %r1, %r2;
	mov.u32 %r4, 0;
	{body}
	st.global.b32 [%out], %r0;
	st.global.b32 [%out+1024], %r4;
	ret;
}}
"
    )
}

/// The results of a case: each thread's first word, then each thread's second.
///
/// # Errors
/// The device refuses the kernel, or fails in it.
pub fn run(device: &dyn Device, index: usize) -> Result<Vec<u32>> {
    let input = device.alloc(3 * THREADS * 4, "inputs")?;
    device.upload(input.all(), bytemuck::cast_slice(&inputs()))?;
    let output = device.alloc(2 * THREADS * 4, "results")?;
    let places = device.alloc(THREADS * PLACE, "places")?;
    let params = [input.addr(), output.addr(), places.addr(), NUMBER];
    let launch = Launch {
        kernel: device.kernel(&name(index))?,
        grid: [1; 3],
        block: [THREADS as u32, 1, 1],
        shared_bytes: 0,
        params: bytemuck::bytes_of(&params),
        dependent: false,
    };
    // SAFETY: the buffers have what the kernel's threads access, and live until the results are here.
    unsafe { device.launch(&launch) }?;
    let mut results = vec![0; 2 * THREADS];
    device.download(bytemuck::cast_slice_mut(&mut results), output.all())?;
    Ok(results)
}

/// Edge cases of integers and singles, small numbers, moderate singles and random bits.
pub fn inputs() -> Vec<u32> {
    const EDGES: [u32; 32] = [
        0,
        1,
        2,
        31,
        32,
        33,
        63,
        64,
        127,
        128,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0080_0000,
        0x007f_ffff,
        0x8000_0001,
        0x7f7f_ffff,
        0x3c00_3c00,
        0x7bff_fbff,
        0x0001_8001,
        0x477f_f000,
        0x4f00_0000,
    ];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut words = Vec::with_capacity(3 * THREADS);
    for _ in 0..3 * THREADS {
        let bits = random();
        words.push(match random() % 4 {
            0 => EDGES[bits as usize % EDGES.len()],
            1 => bits % 70,
            2 => (bits as i32 as f32 * 2f32.powi(-26)).to_bits(),
            _ => bits,
        });
    }
    words
}
