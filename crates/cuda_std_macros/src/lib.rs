//! The macros of `cuda_std`: [`macro@kernel`], [`macro@gpu_only`] and the declarations of static
//! shared memory. Use them through `cuda_std`, which re-exports them.

use proc_macro::TokenStream;
use syn::{ItemFn, parse_macro_input};

mod kernel;
mod shared;

/// Makes a function a kernel: an entry point of the PTX module, under the function's own name.
///
/// ```text
/// #[kernel(max_threads = 256, min_blocks = 2)]
/// pub unsafe fn scale(p: ScaleParams) { /* ... */ }
/// ```
///
/// The function must be `unsafe`, return nothing, have no generics, and take its parameters by
/// value: each parameter type is `Copy`, and references are refused, because the host cannot make
/// one. The parameters together are at most 4096 bytes, the limit of the launch.
///
/// `max_threads` (threads a block) and `min_blocks` (blocks a multiprocessor) bound the registers
/// that ptxas may use. They are constant expressions; `cuda_builder` turns them into the entry's
/// `.maxntid` and `.minnctapersm` directives.
///
/// On other targets the function is an ordinary one, so that it is type-checked there.
#[proc_macro_attribute]
pub fn kernel(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as kernel::Options);
    let function = parse_macro_input!(item as ItemFn);
    kernel::expand(&options, function)
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}

/// Gives a device function a body for other targets that panics, so that the crate compiles there.
#[proc_macro_attribute]
pub fn gpu_only(_options: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    kernel::gpu_only(function).into()
}

/// Declares static shared memory: `shared_array![f32; 64]` is a `*mut f32` to 64 uninitialized
/// values that the threads of a block share. Each place in the source is one array, however often
/// it is reached.
///
/// Accesses through the pointer use generic addressing; `static_shared!` gives a handle whose
/// accesses are `ld.shared` and `st.shared`. The element type is named from the enclosing module,
/// and the length is a constant expression of that module.
#[proc_macro]
pub fn shared_array(input: TokenStream) -> TokenStream {
    let array = parse_macro_input!(input as shared::Array);
    shared::expand_pointer(&array).into()
}

/// Declares static shared memory and gives the `cuda_std::shared::Shared` handle to it:
/// `static_shared![f32; 64]` is a `Shared<f32>`. Otherwise like [`shared_array!`].
#[proc_macro]
pub fn static_shared(input: TokenStream) -> TokenStream {
    let array = parse_macro_input!(input as shared::Array);
    shared::expand_handle(&array).into()
}
