//! Writes what a device needs to check the simulator instruction by instruction.
//!
//! `conformance FOLDER` writes `cases.ptx`, whose kernels `case_0`, `case_1`, … take the addresses of
//! `input.bin` (3 × 256 words) and of 512 words of output, for one block of 256 threads; `cases.tsv`,
//! a line a kernel: how to compare, then the instruction; and `expected.bin`, the simulator's outputs
//! one kernel after the other. Thread t reads words t, t + 256, t + 512 and writes t and t + 256.

use std::fmt::Write as _;
use std::path::PathBuf;

use ptx_sim::{Config, Launch, Memory, Module, Simulator};

const THREADS: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: conformance FOLDER")?);
    let cases: Vec<(String, &str)> = include_str!("conformance/cases.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(split)
        .collect();
    let mut text = ".version 8.0\n.target sm_90\n.address_size 64\n".to_owned();
    let mut table = String::new();
    for (index, (comparison, body)) in cases.iter().enumerate() {
        text += &kernel(index, body);
        writeln!(table, "case_{index}\t{comparison}\t{body}")?;
    }
    let module = Module::parse(&text)?;
    let input: Vec<u8> = inputs()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let mut memory = Memory::new();
    let source = memory.alloc(input.len(), "input")?;
    memory.write(source, &input)?;
    let simulator = Simulator::new(Config::default());
    let mut expected = Vec::new();
    for index in 0..cases.len() {
        let target = memory.alloc(THREADS * 8, "output")?;
        let params: Vec<u8> = [source, target]
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        let block = [THREADS as u32, 1, 1];
        let launch = Launch {
            grid: [1; 3],
            block,
            dynamic_shared: 0,
            params: &params,
        };
        simulator.launch(&memory, &module, &format!("case_{index}"), &launch)?;
        let mut output = vec![0; THREADS * 8];
        memory.read(target, &mut output)?;
        expected.extend(output);
        memory.free(target)?;
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("cases.ptx"), text)?;
    std::fs::write(folder.join("cases.tsv"), table)?;
    std::fs::write(folder.join("input.bin"), input)?;
    std::fs::write(folder.join("expected.bin"), expected)?;
    println!("{} cases in {}", cases.len(), folder.display());
    Ok(())
}

/// The comparison, one or two words, and the instruction.
fn split(line: &str) -> (String, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    if first == "exact" {
        return (first.to_owned(), rest);
    }
    let (bound, body) = rest.split_once(' ').unwrap_or((rest, ""));
    (format!("{first} {bound}"), body)
}

fn kernel(index: usize, body: &str) -> String {
    format!(
        ".visible .entry case_{index}(.param .u64 p_in, .param .u64 p_out)
{{
	.reg .pred %p<4>;
	.reg .b16 %h<4>;
	.reg .b32 %r<8>;
	.reg .b64 %rd<4>;
	.reg .b64 %in, %out;
	.reg .b32 %t;
	mov.u32 %t, %tid.x;
	ld.param.u64 %in, [p_in];
	ld.param.u64 %out, [p_out];
	mad.wide.u32 %in, %t, 4, %in;
	mad.wide.u32 %out, %t, 4, %out;
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

/// Edge cases of integers and singles, small numbers, moderate singles and random bits.
fn inputs() -> Vec<u32> {
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
