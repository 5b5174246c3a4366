//! `#[kernel]` and `#[gpu_only]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, FnArg, Ident, ItemFn, Result, ReturnType, Token, Type};

/// The bounds given to `#[kernel(..)]`.
#[derive(Default)]
pub struct Options {
    max_threads: Option<Expr>,
    min_blocks: Option<Expr>,
}

impl Parse for Options {
    fn parse(input: ParseStream) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let slot = match name.to_string().as_str() {
                "max_threads" => &mut options.max_threads,
                "min_blocks" => &mut options.min_blocks,
                _ => {
                    return Err(Error::new(
                        name.span(),
                        "expected `max_threads` or `min_blocks`",
                    ));
                }
            };
            if slot.replace(input.parse()?).is_some() {
                return Err(Error::new(name.span(), "given twice"));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if options.min_blocks.is_some() && options.max_threads.is_none() {
            return Err(input.error("`min_blocks` has no meaning without `max_threads`"));
        }
        Ok(options)
    }
}

/// Checks the function and makes it an entry point on the device.
pub fn expand(options: &Options, function: ItemFn) -> Result<TokenStream> {
    let types = parameter_types(&function)?;
    let bounds = bounds(options, &function.sig.ident);
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = &function;
    let device_sig = syn::Signature {
        abi: Some(syn::parse_quote!(extern "ptx-kernel")),
        ..sig.clone()
    };
    Ok(quote! {
        const _: () = {
            const fn passed_by_value<T: Copy>() -> usize {
                ::core::mem::size_of::<T>()
            }
            assert!(
                0 #(+ passed_by_value::<#types>())* <= 4096,
                "a kernel's parameters take at most 4096 bytes"
            );
        };
        #bounds
        #[cfg(target_arch = "nvptx64")]
        #(#attrs)*
        #[unsafe(no_mangle)]
        #vis #device_sig #block
        #[cfg(not(target_arch = "nvptx64"))]
        #(#attrs)*
        #vis #sig #block
    })
}

fn parameter_types(function: &ItemFn) -> Result<Vec<&Type>> {
    let sig = &function.sig;
    let refuse = |at: Span, why: &str| Err(Error::new(at, why));
    if sig.unsafety.is_none() {
        return refuse(sig.fn_token.span, "a kernel is an `unsafe fn`");
    }
    if let Some(abi) = &sig.abi {
        return refuse(abi.span(), "`#[kernel]` chooses the calling convention");
    }
    if sig.asyncness.is_some() || sig.constness.is_some() || sig.variadic.is_some() {
        return refuse(sig.span(), "a kernel is a plain `unsafe fn`");
    }
    if !sig.generics.params.is_empty() {
        return refuse(
            sig.generics.span(),
            "a kernel has no generics: write one entry point for each instance",
        );
    }
    if let ReturnType::Type(..) = sig.output {
        return refuse(sig.output.span(), "a kernel returns nothing");
    }
    let mut types = Vec::new();
    for input in &sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                return refuse(receiver.span(), "a kernel is not a method");
            }
            FnArg::Typed(typed) => match &*typed.ty {
                Type::Reference(reference) => {
                    return refuse(
                        reference.span(),
                        "the host cannot pass a reference: take a raw pointer by value",
                    );
                }
                ty => types.push(ty),
            },
        }
    }
    Ok(types)
}

/// The comment in the PTX from which `cuda_builder` makes performance directives: rustc has no way
/// to attach them to an entry point.
fn bounds(options: &Options, name: &Ident) -> TokenStream {
    let Some(max_threads) = &options.max_threads else {
        return TokenStream::new();
    };
    let mut text = format!("// cuda_std kernel {name}: maxntid={{max_threads}}");
    let min_blocks = options.min_blocks.as_ref().map(|min_blocks| {
        text.push_str(" minnctapersm={min_blocks}");
        quote!(, min_blocks = const #min_blocks)
    });
    quote! {
        #[cfg(target_arch = "nvptx64")]
        ::core::arch::global_asm!(#text, max_threads = const #max_threads #min_blocks);
    }
}

/// Keeps the body for the device and panics elsewhere.
pub fn gpu_only(function: ItemFn) -> TokenStream {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = function;
    let message = format!("`{}` runs on the GPU only", sig.ident);
    quote! {
        #[cfg(target_arch = "nvptx64")]
        #(#attrs)*
        #vis #sig #block
        #[cfg(not(target_arch = "nvptx64"))]
        #[allow(unused_variables, clippy::missing_safety_doc)]
        #(#attrs)*
        #vis #sig {
            ::core::unimplemented!(#message)
        }
    }
}
