//! The device crate: PTX for the GPU, and on the host a library that shares constants.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]

use cuda_std::prelude::*;
use cuda_std::static_shared;

/// Threads of a block, each of which reads one element.
pub const THREADS: u32 = 256;

/// `sums[b]` is the sum of the elements of `x` that block `b` reads; those from `n` on count as 0.
///
/// Halves of the block's shared array are added up, eight times; launch with [`THREADS`] threads a block.
///
/// # Safety
/// `x` has `n` elements, `sums` one for each block.
#[kernel(max_threads = THREADS)]
pub unsafe fn block_sums(x: *const f32, n: u32, sums: *mut f32) {
    let shared = static_shared![f32; THREADS as usize];
    let (thread, index) = (thread::thread_idx_x(), thread::index_1d());
    let own = shared.add(thread);
    // SAFETY: `index` is below `n` where `x` is read, `thread` below `THREADS`; barriers lie between a thread's write
    // of a place and another thread's read; and `sums` has an element for each block.
    unsafe {
        own.store(if index < n {
            *x.add(index as usize)
        } else {
            0.0
        });
        let mut half = THREADS / 2;
        while half > 0 {
            // Publishes what the block has stored so far.
            thread::sync_threads();
            if thread < half {
                own.store(own.load() + own.add(half).load());
            }
            half /= 2;
        }
        if thread == 0 {
            *sums.add(thread::block_idx_x() as usize) = own.load();
        }
    }
}

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    cuda_std::misc::trap()
}
