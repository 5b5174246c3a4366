//! Runs small kernels and gives back what they wrote.
#![allow(dead_code)]

pub mod words;

use ptx_sim::{Config, Fault, Launch, Memory, Module, Simulator};

/// The head that every PTX text needs.
pub const HEAD: &str = ".version 8.0\n.target sm_90\n.address_size 64\n";

pub fn simulator() -> Simulator {
    Simulator::new(Config {
        threads: 2,
        instruction_budget: 20_000_000,
        ..Config::default()
    })
}

/// Packs values of one size as a parameter buffer.
pub fn params(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

pub fn launch<'a>(grid: u32, block: u32, params: &'a [u8]) -> Launch<'a> {
    Launch {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
        params,
        dependent: false,
    }
}

/// A kernel around a body that finds the addresses of `in` and `out` in `%in` and `%out`, the
/// thread's number in `%t`, and those of its own 4-byte elements in `%a` and `%d`.
pub fn kernel(body: &str) -> String {
    format!(
        "{HEAD}.visible .entry test(.param .u64 in, .param .u64 out) {{
    .reg .pred %p<16>; .reg .b16 %h<32>; .reg .b32 %r<64>; .reg .b64 %rd<32>;
    .reg .b32 %t; .reg .b64 %in, %out, %a, %d;
    ld.param.u64 %in, [in]; ld.param.u64 %out, [out];
    mov.u32 %t, %tid.x;
    mad.wide.u32 %a, %t, 4, %in; mad.wide.u32 %d, %t, 4, %out;
    {body}
    ret;
}}"
    )
}

/// Runs [`kernel`] with one block over input words; gives the output words.
pub fn run(body: &str, threads: u32, input: &[u32], outputs: usize) -> Result<Vec<u32>, Fault> {
    run_text(&kernel(body), threads, input, outputs)
}

pub fn run_text(
    text: &str,
    threads: u32,
    input: &[u32],
    outputs: usize,
) -> Result<Vec<u32>, Fault> {
    let module = Module::parse(text).unwrap();
    let mut memory = Memory::new();
    let source = memory.alloc(input.len().max(1) * 4, "in").unwrap();
    let bytes: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(source, &bytes).unwrap();
    let target = memory.alloc(outputs * 4, "out").unwrap();
    let params = params(&[source, target]);
    simulator().launch(&memory, &module, "test", &launch(1, threads, &params))?;
    let mut bytes = vec![0; outputs * 4];
    memory.read(target, &mut bytes).unwrap();
    Ok(bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect())
}

/// A small deterministic generator of test values.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as u32
    }

    pub fn words(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.next()).collect()
    }

    /// A float between -1 and 1.
    pub fn float(&mut self) -> f32 {
        self.next() as f32 / 2f32.powi(31) - 1.0
    }
}
