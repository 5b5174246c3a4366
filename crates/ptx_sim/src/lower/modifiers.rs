//! An opcode's dotted parts, consumed one by one: what is left at the end is unknown.

use crate::error::{ParseErrorKind, Result};
use crate::lower::error;
use crate::module::Instruction;
use crate::op::Round;
use crate::parse::space;
use crate::ty::{Space, Ty};

pub(crate) struct Modifiers<'a> {
    instruction: &'a Instruction,
    parts: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    /// Splits the opcode; gives its first part and the others.
    pub fn new(instruction: &'a Instruction) -> (&'a str, Modifiers<'a>) {
        let mut parts = instruction.opcode.split('.');
        let name = parts.next().unwrap_or_default();
        (
            name,
            Modifiers {
                instruction,
                parts: parts.collect(),
            },
        )
    }

    /// Removes a modifier; whether it was there.
    pub fn take(&mut self, name: &str) -> bool {
        let found = self.parts.iter().position(|part| *part == name);
        found.map(|at| self.parts.remove(at)).is_some()
    }

    /// Removes the first modifier that the table knows.
    pub fn take_one_of<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        for (at, part) in self.parts.iter().enumerate() {
            if let Some(&(_, value)) = table.iter().find(|(name, _)| name == part) {
                self.parts.remove(at);
                return Some(value);
            }
        }
        None
    }

    /// Like [`Modifiers::take_one_of`], for modifiers that must be there.
    pub fn one_of<T: Copy>(&mut self, table: &[(&str, T)]) -> Result<T> {
        self.take_one_of(table).ok_or_else(|| self.unknown())
    }

    pub fn take_ty(&mut self) -> Option<Ty> {
        let at = self
            .parts
            .iter()
            .position(|part| Ty::parse(part).is_some())?;
        Ty::parse(self.parts.remove(at))
    }

    pub fn ty(&mut self) -> Result<Ty> {
        self.take_ty().ok_or_else(|| self.unknown())
    }

    pub fn take_space(&mut self) -> Option<Space> {
        let at = self.parts.iter().position(|part| space(part).is_some())?;
        space(self.parts.remove(at))
    }

    pub fn take_round(&mut self) -> Option<Round> {
        self.take_one_of(&[
            ("rn", Round::Nearest),
            ("rz", Round::Zero),
            ("rm", Round::Down),
            ("rp", Round::Up),
        ])
    }

    /// Removes every modifier for which the test holds.
    pub fn discard(&mut self, test: impl Fn(&str) -> bool) {
        self.parts.retain(|part| !test(part));
    }

    pub fn unknown(&self) -> crate::ParseError {
        error(self.instruction, ParseErrorKind::UnknownInstruction)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        if self.parts.is_empty() {
            Ok(())
        } else {
            Err(self.unknown())
        }
    }
}
