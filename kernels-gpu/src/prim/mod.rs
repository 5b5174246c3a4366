//! GPU instructions that `cuda_std` has no name for, as inline PTX. All are `inline(always)`; on the
//! host they type-check and panic when called.
//!
//! Inline PTX outside this folder and `cuda_std` is not wanted: here each instruction has one name,
//! one safety condition and one test.

pub mod async_copy;
pub mod grid;
pub mod half;
pub mod integer;
pub mod load;
pub mod math;
pub mod mma;
pub mod random;
pub mod reduce;
pub mod scale;
