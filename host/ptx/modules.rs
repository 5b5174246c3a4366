//! The PTX that this binary carries, and where the kernels are in its text.

use std::ops::Range;

pub use kernels_ptx::{KernelEntry, PtxModule, modules};
use memchr::{memchr_iter, memmem};

/// Where the kernels are in PTX text as rustc lays it out: each begins a line, and ends with a line of its own. To
/// find them takes a few milliseconds, so it is done once for a text.
pub struct KernelTexts<'a> {
    ptx: &'a str,
    kernels: Vec<KernelText<'a>>,
}

struct KernelText<'a> {
    name: &'a str,
    range: Range<usize>,
    /// Lines before it.
    line: usize,
}

impl<'a> KernelTexts<'a> {
    /// Finds the kernels of `ptx`.
    pub fn find(ptx: &'a str) -> KernelTexts<'a> {
        let (mut at, mut line) = (0, 0);
        let kernels = entries(ptx).map(|(name, range)| {
            line += lines(&ptx[at..range.start]);
            at = range.start;
            KernelText { name, range, line }
        });
        let kernels = kernels.collect();
        KernelTexts { ptx, kernels }
    }

    /// The text of a kernel, alone.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let mut kernels = self.kernels.iter();
        let kernel = kernels.find(|kernel| kernel.name == name)?;
        Some(&self.ptx[kernel.range.clone()])
    }

    /// What all kernels share (version, target, declarations of shared memory) and the wanted ones. Lines that are
    /// left out before a kernel are kept as empty ones, so that a compiler's messages have the whole text's
    /// numbers. `None` where no kernel is wanted, or the text is not laid out as rustc writes it.
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut wanted = self.kernels.iter().filter(|kernel| wanted(kernel.name));
        let mut kernel = wanted.next()?;
        let head = &self.ptx[..self.kernels[0].range.start];
        let (mut text, mut line) = (head.to_owned(), lines(head));
        loop {
            text.push_str(&"\n".repeat(kernel.line - line));
            let body = &self.ptx[kernel.range.clone()];
            text.push_str(body);
            line = kernel.line + lines(body);
            match wanted.next() {
                Some(next) => kernel = next,
                None => break,
            }
        }
        text.push('\n');
        Some(text)
    }
}

fn lines(text: &str) -> usize {
    memchr_iter(b'\n', text.as_bytes()).count()
}

/// Names and places of the kernels.
fn entries(ptx: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    const START: &str = "\n.visible .entry ";
    let end_of_kernel = memmem::Finder::new("\n}");
    memmem::find_iter(ptx.as_bytes(), START).filter_map(move |at| {
        let name = at + START.len();
        let name_end = name + ptx[name..].find('(')?;
        let end = name_end + end_of_kernel.find(&ptx.as_bytes()[name_end..])? + 2;
        Some((&ptx[name..name_end], at + 1..end))
    })
}

#[cfg(test)]
mod tests {
    use kernels_gpu::ops::norm::RMS_NORM_F32;

    use super::*;
    use crate::device::KernelTable;

    /// Whether the text declares all shared memory that it uses.
    fn assert_declares_what_it_uses(text: &str) {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("shared_") || word.starts_with("cuda_std_") {
                let declares = |line: &str| line.contains(".shared .align") && line.contains(word);
                assert!(text.lines().any(declares), "{word} is not declared");
            }
        }
    }

    #[test]
    fn every_kernel_stands_alone_at_its_own_line() {
        for module in modules() {
            let table = KernelTable::parse(module.ptx()).unwrap();
            let texts = KernelTexts::find(module.ptx());
            for entry in table.entries() {
                let alone = texts.only(|name| name == entry.name).unwrap();
                assert_eq!(
                    KernelTable::parse(&alone).unwrap().entries(),
                    std::slice::from_ref(entry)
                );
                let line = |text: &str| {
                    let wanted = format!(".entry {}(", entry.name);
                    text.lines().position(|line| line.contains(&wanted))
                };
                assert_eq!(line(&alone), line(module.ptx()));
                assert_declares_what_it_uses(&alone);
            }
        }
    }

    #[test]
    fn several_kernels_stand_at_their_own_lines() {
        let ptx = modules()[0].ptx();
        let texts = KernelTexts::find(ptx);
        let two = texts
            .only(|name| ["argmax", "rope_kv"].contains(&name))
            .unwrap();
        for (number, line) in two.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            assert_eq!(ptx.lines().nth(number), Some(line));
        }
        assert_eq!(two.matches(".entry").count(), 2);
        assert_eq!(texts.only(|_| false), None);
        assert_eq!(KernelTexts::find("no PTX").only(|_| true), None);
    }

    #[test]
    fn modules_have_the_same_kernels_and_the_definitions_match_them() {
        let [first, others @ ..] = modules() else {
            panic!("no modules")
        };
        for module in others {
            for kernel in first.kernels {
                assert_eq!(module.kernel(kernel.name), Some(kernel));
            }
            assert_eq!(module.kernels.len(), first.kernels.len());
        }
        let entry = first.kernel(RMS_NORM_F32.name).unwrap();
        assert_eq!(entry.param_bytes, RMS_NORM_F32.param_bytes());
        assert_eq!(entry.max_threads, RMS_NORM_F32.max_threads);
    }

    #[test]
    fn kernels_call_nothing_and_know_their_address_spaces() {
        for module in modules() {
            for line in module.ptx().lines().map(str::trim_start) {
                let bad = ["ld.b", "ld.v", "st.b", "st.v", "call"]
                    .iter()
                    .any(|i| line.starts_with(i));
                assert!(!bad, "sm_{}: {line}", module.compute_capability);
            }
        }
    }
}
