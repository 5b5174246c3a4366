//! Device standard library: thread indices, barriers, warp operations and math for NVPTX kernels.
