//! What the compiler cannot say, written into its PTX, and the table of the kernels in it.
//!
//! **Launch bounds.** rustc cannot attach them to a kernel; `#[kernel(max_threads = ..)]` leaves a
//! comment, `// cuda_std kernel NAME: maxntid=256 minnctapersm=2`, that becomes the entry's
//! directives.
//!
//! **Address spaces.** A pointer that comes out of a parameter struct is generic to LLVM, and for a
//! generic access the hardware finds the memory's kind each time. In a kernel that makes no generic
//! address of shared, local or constant memory (`cvta`) and calls no function, every generic address
//! comes from the host, which knows global memory only: there `ld` and `st` become `ld.global` and
//! `st.global`.

use std::collections::BTreeMap;
use std::fmt::Write;

/// PTX that is not in the compiler's usual form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PtxError {
    /// A launch-bounds comment that cannot be read.
    #[error("line {line}: not a launch-bounds comment: {text:?}")]
    BadBounds {
        /// Line, from 1.
        line: usize,
        /// The comment.
        text: String,
    },
    /// Launch bounds of a kernel that is not there.
    #[error("launch bounds of kernel {0:?}, which the module does not contain")]
    NoSuchKernel(String),
    /// An entry whose parameter list or body does not end.
    #[error("line {line}: entry {name:?} is cut off")]
    Unfinished {
        /// Line, from 1.
        line: usize,
        /// The kernel.
        name: String,
    },
    /// A parameter declaration that cannot be read.
    #[error("line {line}: not a parameter of a kernel: {text:?}")]
    BadParameter {
        /// Line, from 1.
        line: usize,
        /// The declaration.
        text: String,
    },
}

/// A kernel of a PTX module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name to launch it by.
    pub name: String,
    /// Bytes of each parameter.
    pub param_bytes: Vec<u32>,
    /// `.maxntid`: the most threads of a block.
    pub max_threads: Option<u32>,
}

const BOUNDS_PREFIX: &str = "// cuda_std kernel ";

/// Launch bounds, as in the comment.
#[derive(Default)]
struct Bounds {
    maxntid: Option<u32>,
    minnctapersm: Option<u32>,
}

/// Writes launch bounds and address spaces into the compiler's PTX.
pub fn finish(ptx: &str) -> Result<String, PtxError> {
    let mut bounds = BTreeMap::new();
    let mut lines = Vec::new();
    for (number, line) in ptx.lines().enumerate() {
        match line.strip_prefix(BOUNDS_PREFIX) {
            Some(text) => {
                let (name, parsed) = parse_bounds(text).ok_or_else(|| PtxError::BadBounds {
                    line: number + 1,
                    text: line.to_owned(),
                })?;
                bounds.insert(name, parsed);
            }
            None => lines.push((number + 1, line)),
        }
    }

    let mut out = String::with_capacity(ptx.len() + ptx.len() / 16);
    let mut rest = lines.as_slice();
    while let Some((&(number, line), tail)) = rest.split_first() {
        let Some(name) = entry_name(line) else {
            push_line(&mut out, line);
            rest = tail;
            continue;
        };
        let unfinished = || PtxError::Unfinished {
            line: number,
            name: name.to_owned(),
        };
        let open = rest
            .iter()
            .position(|(_, line)| *line == "{")
            .ok_or_else(unfinished)?;
        let close = rest
            .iter()
            .position(|(_, line)| *line == "}")
            .ok_or_else(unfinished)?;
        if close < open {
            return Err(unfinished());
        }
        for (_, line) in &rest[..open] {
            push_line(&mut out, line);
        }
        if let Some(bounds) = bounds.remove(name) {
            for (directive, value) in [
                (".maxntid", bounds.maxntid),
                (".minnctapersm", bounds.minnctapersm),
            ] {
                if let Some(value) = value {
                    writeln!(out, "{directive} {value}").expect("writing to a string");
                }
            }
        }
        let body = &rest[open..=close];
        let global_only = body
            .iter()
            .all(|(_, line)| !makes_other_generic_address(line));
        for (_, line) in body {
            match rewritten(line).filter(|_| global_only) {
                Some(line) => push_line(&mut out, &line),
                None => push_line(&mut out, line),
            }
        }
        rest = &rest[close + 1..];
    }
    match bounds.into_keys().next() {
        Some(name) => Err(PtxError::NoSuchKernel(name.to_owned())),
        None => Ok(out),
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// `NAME: maxntid=256 minnctapersm=2`
fn parse_bounds(text: &str) -> Option<(&str, Bounds)> {
    let (name, list) = text.split_once(':')?;
    let mut bounds = Bounds::default();
    for item in list.split_whitespace() {
        let (key, value) = item.split_once('=')?;
        let slot = match key {
            "maxntid" => &mut bounds.maxntid,
            "minnctapersm" => &mut bounds.minnctapersm,
            _ => return None,
        };
        *slot = Some(value.parse().ok().filter(|value| *value > 0)?);
    }
    Some((name, bounds))
}

fn entry_name(line: &str) -> Option<&str> {
    let (_, after) = line.split_once(".entry ")?;
    after
        .split(['(', ' '])
        .next()
        .filter(|name| !name.is_empty())
}

fn makes_other_generic_address(line: &str) -> bool {
    let instruction = instruction(line);
    instruction.starts_with("call")
        || ["cvta.shared", "cvta.local", "cvta.const", "cvta.param"]
            .iter()
            .any(|cvta| line.contains(cvta))
}

/// The line without indentation and predicate.
fn instruction(line: &str) -> &str {
    let line = line.trim_start();
    match line.strip_prefix('@') {
        Some(predicated) => predicated
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest),
        None => line,
    }
}

/// The generic `ld` or `st` of this line as one of global memory.
fn rewritten(line: &str) -> Option<String> {
    let instruction = instruction(line);
    let (operation, qualifiers) = instruction.split_once('.')?;
    if operation != "ld" && operation != "st" {
        return None;
    }
    // A state space, a cache hint or an ordering in this place is none of the compiler's plain
    // accesses: those go on with the vector size or the type.
    let first = qualifiers
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()?;
    let plain = matches!(
        first,
        "v2" | "v4"
            | "b8"
            | "b16"
            | "b32"
            | "b64"
            | "b128"
            | "u8"
            | "u16"
            | "u32"
            | "u64"
            | "s8"
            | "s16"
            | "s32"
            | "s64"
            | "f32"
            | "f64"
    );
    let before = line.len() - instruction.len();
    plain.then(|| format!("{}{operation}.global.{qualifiers}", &line[..before]))
}

/// The kernels of a PTX module, in its order.
pub fn entries(ptx: &str) -> Result<Vec<Entry>, PtxError> {
    let mut entries = Vec::new();
    let mut lines = ptx
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line));
    while let Some((number, line)) = lines.next() {
        let Some(name) = entry_name(line) else {
            continue;
        };
        let mut entry = Entry {
            name: name.to_owned(),
            param_bytes: Vec::new(),
            max_threads: None,
        };
        loop {
            let (line, text) = lines
                .next()
                .map(|(line, text)| (line, text.trim().trim_end_matches(',')))
                .ok_or_else(|| PtxError::Unfinished {
                    line: number,
                    name: name.to_owned(),
                })?;
            let bad = || PtxError::BadParameter {
                line,
                text: text.to_owned(),
            };
            if text == "{" {
                break;
            } else if text.starts_with(".param") {
                entry.param_bytes.push(param_bytes(text).ok_or_else(bad)?);
            } else if let Some(value) = text.strip_prefix(".maxntid ") {
                entry.max_threads = Some(value.parse().map_err(|_| bad())?);
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// `.param .align 8 .b8 name[48]` or `.param .b64 name`
fn param_bytes(declaration: &str) -> Option<u32> {
    if let Some((_, count)) = declaration.split_once('[') {
        return count.strip_suffix(']')?.parse().ok();
    }
    let ty = declaration.split_whitespace().find(|word| {
        word.strip_prefix('.')
            .is_some_and(|ty| ty.ends_with(|c: char| c.is_ascii_digit()))
    })?;
    Some(
        ty.trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .ok()?
            / 8,
    )
}

#[cfg(test)]
#[path = "ptx_tests.rs"]
mod tests;
