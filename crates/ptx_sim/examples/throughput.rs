//! Prints how many thread-instructions a second one core simulates, with and without the checks.

use std::time::Instant;

use ptx_sim::{Config, Fault, Launch, Memory, Module, Simulator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(include_str!("throughput.ptx"))?;
    let checks = Config {
        threads: 1,
        ..Config::default()
    };
    let no_checks = Config {
        race_checks: false,
        block_race_checks: false,
        uninitialised_checks: false,
        ..checks.clone()
    };
    for kernel in ["multiply_add", "dot_rows", "tile_sums", "matrix_tiles"] {
        let checked = measure(&module, kernel, checks.clone())?;
        let unchecked = measure(&module, kernel, no_checks.clone())?;
        println!("{kernel:14} {checked:7.1} M/s checked {unchecked:7.1} M/s unchecked");
    }
    Ok(())
}

/// Millions of thread-instructions a second: the best of three launches.
fn measure(module: &Module, kernel: &str, config: Config) -> Result<f64, Fault> {
    const ELEMENTS: usize = 1 << 18;
    let mut memory = Memory::new();
    let mut buffer = |label| {
        let address = memory.alloc(ELEMENTS * 4, label).expect("a small buffer");
        memory
            .write(address, &1.0f32.to_le_bytes().repeat(ELEMENTS))
            .expect("inside the buffer");
        address
    };
    let (input, output) = (buffer("input"), buffer("output"));
    let params: Vec<u8> = [input, output]
        .iter()
        .flat_map(|p| p.to_le_bytes())
        .collect();
    let launch = Launch {
        grid: [64, 1, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params: &params,
        dependent: false,
    };
    let simulator = Simulator::new(config);
    let mut best = 0.0f64;
    for _ in 0..3 {
        let start = Instant::now();
        let stats = simulator.launch(&memory, module, kernel, &launch)?;
        best = best.max(stats.instructions as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    Ok(best)
}
