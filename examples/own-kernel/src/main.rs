//! Runs the kernel on the first GPU: `cargo run --features cuda`.

use cust::launch;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use own_kernel::{PTX, THREADS, example, expected_sums};

fn main() -> Result<(), cust::error::CudaError> {
    let x = example(10_000);
    let expected = expected_sums(&x);

    let _context = cust::quick_init()?;
    let module = Module::from_ptx(PTX, &[])?;
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    let input = DeviceBuffer::from_slice(&x)?;
    let sums = DeviceBuffer::from_slice(&vec![0.0f32; expected.len()])?;

    let (n, blocks) = (x.len() as u32, expected.len() as u32);
    // SAFETY: types, number and order of the arguments are `block_sums`'s, and the buffers are as long as it demands.
    unsafe {
        launch!(module.block_sums<<<blocks, THREADS, 0, stream>>>(
            input.as_device_ptr(),
            n,
            sums.as_device_ptr()
        ))?;
    }
    stream.synchronize()?;

    let mut result = vec![0.0; expected.len()];
    sums.copy_to(&mut result)?;
    assert_eq!(result, expected);
    println!("{blocks} blocks summed {n} elements as the CPU does");
    Ok(())
}
