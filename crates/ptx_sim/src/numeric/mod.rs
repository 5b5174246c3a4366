//! The arithmetic of one lane.

pub(crate) mod approx;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod integer;
