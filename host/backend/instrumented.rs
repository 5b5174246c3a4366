//! Measuring what a backend's steps are made of.

/// A kernel that a step launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedLaunch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Bytes of weights, keys and values that it moves; `None` where nobody counted.
    pub bytes: Option<u64>,
}

/// A backend whose steps launch kernels.
pub trait Instrumented {
    /// Begins to note the kernels that steps launch, and how much each reads. Until
    /// [`noted_launches`](Self::noted_launches) nothing is replayed, so steps take longer.
    fn note_launches(&self);

    /// The launches noted, in their order.
    fn noted_launches(&self) -> Vec<NotedLaunch>;
}
