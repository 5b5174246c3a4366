//! The PTX of one kernel, to find instructions in and to change them.

use hyperion::ptx;
use hyperion::ptx::{PtxImage, PtxText};

/// What all kernels share, and one kernel. Lines are counted from 0; a change never moves one.
#[derive(Clone)]
pub struct KernelText {
    name: &'static str,
    /// What the image is for: 80 is compute capability 8.0.
    arch: u32,
    lines: Vec<String>,
}

/// The parts of an instruction.
pub struct Instruction<'a> {
    /// With its modifiers.
    pub opcode: &'a str,
    /// As they are written; a vector is one.
    pub operands: Vec<&'a str>,
}

impl KernelText {
    /// The kernel as this binary has it for compute capability 8.0, the simulator's own.
    pub fn shipped(name: &'static str) -> Self {
        Self::shipped_for(80, name)
    }

    /// The kernel as this binary has it for another compute capability.
    pub fn shipped_for(arch: u32, name: &'static str) -> Self {
        const ENTRY: &str = ".visible .entry ";
        let mut modules = ptx::modules().iter();
        let image = modules.find(|module| module.compute_capability == arch);
        let image = image.expect("there is one");
        let start = format!("{ENTRY}{name}(");
        let head = image
            .ptx()
            .lines()
            .take_while(|line| !line.starts_with(ENTRY));
        let body = image
            .ptx()
            .lines()
            .skip_while(|line| !line.starts_with(&start));
        let body_lines = body.clone().take_while(|line| *line != "}");
        let lines: Vec<String> = head
            .chain(body_lines)
            .chain(["}"])
            .map(str::to_owned)
            .collect();
        assert!(
            lines.iter().any(|line| line.starts_with(&start)),
            "no {name}"
        );
        Self { name, arch, lines }
    }

    /// The whole text.
    pub fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }

    /// An image of this kernel alone, which lives as long as the binary's own.
    pub fn image(&self) -> PtxImage {
        PtxImage {
            arch: self.arch,
            text: PtxText::Plain(self.text().leak()),
        }
    }

    /// The same kernel without a bug.
    pub fn unchanged(&self) -> Self {
        Self::shipped_for(self.arch, self.name)
    }

    /// The kernel and line as faults name them.
    pub fn place(&self, line: usize) -> String {
        let text = self.lines[line].trim();
        format!("kernel `{}`, PTX line {} (`{text}`)", self.name, line + 1)
    }

    /// The instruction of a line, if there is one.
    pub fn instruction(&self, line: usize) -> Option<Instruction<'_>> {
        let text = self.lines[line].trim().strip_suffix(';')?;
        let text = match text.strip_prefix('@') {
            Some(guarded) => guarded.split_once(char::is_whitespace)?.1.trim_start(),
            None => text,
        };
        let (opcode, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        Some(Instruction {
            opcode,
            operands: split_operands(operands),
        })
    }

    /// All lines whose instruction fits, in order.
    pub fn all(&self, fits: impl Fn(&Instruction<'_>) -> bool) -> Vec<usize> {
        let is_one = |&line: &usize| self.instruction(line).is_some_and(|found| fits(&found));
        (0..self.lines.len()).filter(is_one).collect()
    }

    /// The one line whose instruction fits.
    pub fn only(&self, fits: impl Fn(&Instruction<'_>) -> bool) -> usize {
        let found = self.all(fits);
        let places: Vec<String> = found.iter().map(|&line| self.place(line)).collect();
        assert!(
            found.len() == 1,
            "{}: one place wanted, not {places:#?}",
            self.name
        );
        found[0]
    }

    /// The operand of a line.
    pub fn operand(&self, line: usize, index: usize) -> String {
        self.instruction(line).expect("an instruction").operands[index].to_owned()
    }

    /// The last line before one that gives a register its value.
    pub fn definition(&self, register: &str, before: usize) -> usize {
        let defines = |&line: &usize| {
            let found = self.instruction(line);
            found.is_some_and(|found| found.operands.first() == Some(&register))
        };
        (0..before).rev().find(defines).expect("a definition")
    }

    /// Puts another text in a part of a line that is there once.
    pub fn replace(&mut self, line: usize, from: &str, to: &str) {
        let text = &mut self.lines[line];
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        *text = text.replacen(from, to, 1);
    }

    /// Puts instructions in a line's place.
    pub fn set(&mut self, line: usize, instructions: &str) {
        instructions.clone_into(&mut self.lines[line]);
    }

    /// Adds an instruction behind that of a line.
    pub fn append(&mut self, line: usize, instruction: &str) {
        self.lines[line] += instruction;
    }

    /// Takes a line's instruction away.
    pub fn remove(&mut self, line: usize) {
        self.set(line, "");
    }
}

/// Operands between commas; those inside of braces belong to a vector.
fn split_operands(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}
