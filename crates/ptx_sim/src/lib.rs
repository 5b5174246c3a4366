//! Runs PTX kernels on the CPU and reports what a sanitizer would.
