//! The kernel without a GPU: what it computes, and that a missing barrier is found.

use own_kernel::{PTX, THREADS, example, expected_sums};
use ptx_sim::{Config, Fault, FaultKind, Launch, Memory, Module, Simulator};

/// Runs `block_sums` of this PTX on `x`.
fn block_sums(ptx: &str, x: &[f32]) -> Result<Vec<f32>, Fault> {
    let module = Module::parse(ptx).expect("the simulator knows all that rustc writes");
    let bytes: Vec<u8> = x.iter().flat_map(|value| value.to_le_bytes()).collect();
    let blocks = x.len().div_ceil(THREADS as usize);
    let mut memory = Memory::new();
    // The names appear in the message of a wrong access.
    let input = memory.alloc(bytes.len(), "x").expect("memory");
    let sums = memory.alloc(4 * blocks, "sums").expect("memory");
    memory.write(input, &bytes).expect("inside the buffer");

    // The parameters as they lie in the launch: each aligned to its size.
    let mut params = Vec::new();
    params.extend(input.to_le_bytes());
    params.extend((x.len() as u64).to_le_bytes()); // the u32 `n`, and four bytes up to the pointer
    params.extend(sums.to_le_bytes());
    let launch = Launch {
        grid: [blocks as u32, 1, 1],
        block: [THREADS, 1, 1],
        dynamic_shared: 0,
        params: &params,
        dependent: false,
    };
    Simulator::new(Config::default()).launch(&memory, &module, "block_sums", &launch)?;

    let mut result = vec![0; 4 * blocks];
    memory.read(sums, &mut result).expect("inside the buffer");
    let words = result.as_chunks().0.iter();
    Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
}

#[test]
fn sums_are_the_cpus() {
    for n in [1, 255, 256, 257, 1000] {
        let x = example(n);
        assert_eq!(block_sums(PTX, &x).expect("no fault"), expected_sums(&x));
    }
}

#[test]
fn every_barrier_is_needed() {
    const BARRIER: &str = "bar.sync";
    let mut races = 0;
    for (at, _) in PTX.match_indices(BARRIER) {
        // The seeded bug: one barrier becomes a comment.
        let racy = format!("{}//{}", &PTX[..at], &PTX[at..]);
        let fault = block_sums(&racy, &example(1000)).expect_err("a missing barrier is found");
        match fault.kind {
            FaultKind::Race { .. } => {
                println!("{fault}");
                races += 1;
            }
            // Without the first one a warp reads what no other has written yet.
            FaultKind::UninitialisedRead { .. } => {}
            _ => panic!("another fault: {fault}"),
        }
    }
    assert!(races > 0);
}
