//! Speed of the dot products that unpack on the way, on one core: `cargo bench --bench dot [TYPE]`.
//!
//! Rows have 4096 elements, of a matrix that stays in the second-level cache and of one that comes
//! from memory.

use std::hint::black_box;
use std::time::Instant;

use hyperion::gguf::{GgmlType, quant};

const ROW: usize = 4096;
const CACHED_BYTES: usize = 256 << 10;
const MEMORY_BYTES: usize = 96 << 20;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    println!("{:8}{:>22}{:>22}", "", "from cache", "from memory");
    println!(
        "{:8}{:>12}{:>10}{:>12}{:>10}",
        "type", "Gweights/s", "GB/s", "Gweights/s", "GB/s"
    );
    for &ty in GgmlType::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == ty.name()) {
            continue;
        }
        let x = vec![0.5f32; ROW];
        let one = |row: &[u8]| quant::dot(ty, row, black_box(&x));
        let cached = measure(ty, CACHED_BYTES, 60, one);
        let memory = measure(ty, MEMORY_BYTES, 1, one);
        let bytes_per_weight = ty.block_bytes() as f64 / ty.block_elements() as f64;
        println!(
            "{:8}{:12.2}{:10.2}{:12.2}{:10.2}",
            ty,
            cached,
            cached * bytes_per_weight,
            memory,
            memory * bytes_per_weight,
        );
    }
}

/// Billions of weights per second: the best of thirty runs of `passes` passes over `bytes` bytes.
fn measure<T>(ty: GgmlType, bytes: usize, passes: usize, work: impl Fn(&[u8]) -> T) -> f64 {
    let row_bytes = ty.bytes_of(ROW).expect("whole blocks");
    // 0x11 is an ordinary number in every type, and no type's speed depends on the values.
    let matrix = vec![0x11u8; bytes / row_bytes * row_bytes];
    let run = || {
        let start = Instant::now();
        for _ in 0..passes {
            for row in matrix.chunks_exact(row_bytes) {
                black_box(work(row));
            }
        }
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..30).map(|_| run()).fold(f64::INFINITY, f64::min);
    (matrix.len() / row_bytes * ROW * passes) as f64 / seconds / 1e9
}
