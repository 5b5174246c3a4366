//! Static shared memory. PTX declares it at module scope; Rust has no statics in that address
//! space, so the declaration is module-level assembly under a symbol made from the source position.

use std::hash::{DefaultHasher, Hash, Hasher};

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Result, Token, Type};

/// The macros' argument: `T; N`.
pub struct Array {
    element: Type,
    length: Expr,
}

impl Parse for Array {
    fn parse(input: ParseStream) -> Result<Self> {
        let element = input.parse()?;
        input.parse::<Token![;]>()?;
        let length = input.parse()?;
        Ok(Self { element, length })
    }
}

/// `shared_array!`: a generic pointer.
pub fn expand_pointer(array: &Array) -> TokenStream {
    let element = &array.element;
    let handle = expand_handle(array);
    quote!({
        let shared: ::cuda_std::shared::Shared<#element> = #handle;
        shared.as_mut_ptr()
    })
}

/// `static_shared!`: a handle with a 32-bit shared address.
pub fn expand_handle(Array { element, length }: &Array) -> TokenStream {
    let symbol = symbol();
    // 16 bytes: vector accesses and `cp.async` need it whatever the element.
    let declaration = format!(".shared .align 16 .b8 {symbol}[{{bytes}}];");
    let address = format!("mov.u32 {{0}}, {symbol};");
    quote!({
        #[cfg(target_arch = "nvptx64")]
        mod declaration {
            #[allow(unused_imports)]
            use super::*;
            ::core::arch::global_asm!(
                #declaration,
                bytes = const ::core::mem::size_of::<[#element; #length]>()
            );
        }
        #[::cuda_std::gpu_only]
        #[inline(always)]
        fn address() -> u32 {
            let address: u32;
            // SAFETY: it only reads the address of the variable declared above.
            unsafe {
                ::core::arch::asm!(
                    #address,
                    out(reg32) address,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            address
        }
        ::cuda_std::shared::Shared::<#element>::from_address(address())
    })
}

/// A symbol for the macro's place in the source, the same in every build of that source.
fn symbol() -> String {
    let span = Span::call_site().unwrap();
    let mut hasher = DefaultHasher::new();
    span.file().hash(&mut hasher);
    format!(
        "shared_{:08x}_{}_{}",
        hasher.finish() as u32,
        span.line(),
        span.column()
    )
}
