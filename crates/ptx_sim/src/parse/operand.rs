//! Operands.

use crate::error::{ParseErrorKind, Result};
use crate::module::Operand;
use crate::parse::body::Body;
use crate::parse::lexer::{Spanned, Token, error};
use crate::special::SpecialRegister;

const MAX_ELEMENTS: usize = 64;

impl Body<'_, '_> {
    /// One operand of an instruction.
    pub(super) fn operand(&mut self) -> Result<Operand> {
        if self.parser.accept(b'!') {
            return Ok(Operand::Not(Box::new(self.scalar()?)));
        }
        match self.parser.peek().token {
            Token::Punct(b'{') => {
                let elements = Operand::Vector(self.list(b'{', b'}')?);
                if self.parser.accept(b'|') {
                    return Ok(Operand::Pair(Box::new(elements), Box::new(self.scalar()?)));
                }
                Ok(elements)
            }
            Token::Punct(b'(') => Ok(Operand::Group(self.list(b'(', b')')?)),
            Token::Punct(b'[') => self.memory(),
            _ => {
                let first = self.scalar()?;
                if self.parser.accept(b'|') {
                    return Ok(Operand::Pair(Box::new(first), Box::new(self.scalar()?)));
                }
                Ok(first)
            }
        }
    }

    fn list(&mut self, open: u8, close: u8) -> Result<Vec<Operand>> {
        let start = self.parser.peek();
        self.parser.expect(open)?;
        let mut elements = Vec::new();
        while !self.parser.accept(close) {
            if !elements.is_empty() {
                self.parser.expect(b',')?;
            }
            if elements.len() == MAX_ELEMENTS {
                return Err(error(&start, ParseErrorKind::Limit("elements".into())));
            }
            elements.push(self.scalar()?);
        }
        Ok(elements)
    }

    fn memory(&mut self) -> Result<Operand> {
        self.parser.expect(b'[')?;
        let base = self.scalar()?;
        let offset = self.parser.offset()?;
        if self.parser.accept(b',') {
            return self.texel();
        }
        self.parser.expect(b']')?;
        let (base, offset) = match base {
            Operand::Symbol {
                name,
                offset: inner,
            } => (
                Operand::Symbol { name, offset: 0 },
                inner.wrapping_add(offset),
            ),
            Operand::Local {
                variable,
                offset: inner,
            } => (
                Operand::Local {
                    variable,
                    offset: 0,
                },
                inner.wrapping_add(offset),
            ),
            base => (base, offset),
        };
        Ok(Operand::Memory {
            base: Box::new(base),
            offset,
        })
    }

    /// What follows the name of a texture: a sampler, coordinates, offsets.
    fn texel(&mut self) -> Result<Operand> {
        loop {
            match self.parser.peek().token {
                Token::Punct(b'{') => drop(self.list(b'{', b'}')?),
                _ => drop(self.scalar()?),
            }
            if !self.parser.accept(b',') {
                break;
            }
        }
        self.parser.expect(b']')?;
        Ok(Operand::Texel)
    }

    fn scalar(&mut self) -> Result<Operand> {
        let start = self.parser.peek();
        let negative = self.parser.accept(b'-');
        let token = self.parser.peek();
        let operand = match token.token {
            Token::Int(value) => Operand::Int(if negative {
                value.wrapping_neg()
            } else {
                value
            }),
            Token::F32(bits) if !negative => Operand::F32(bits),
            Token::F64(value) => Operand::F64(if negative { -value } else { value }),
            Token::Ident(_) if !negative => return self.name(token),
            _ => return self.parser.fail("an operand"),
        };
        debug_assert!(negative || start.start == token.start);
        self.parser.next();
        Ok(operand)
    }

    fn name(&mut self, token: Spanned<'_>) -> Result<Operand> {
        let name = self.parser.ident()?;
        if name == "_" {
            return Ok(Operand::Discard);
        }
        if let Some(id) = self.find_register(name) {
            return Ok(Operand::Register(id));
        }
        if name == "WARP_SZ" {
            return Ok(Operand::Int(32));
        }
        if name.starts_with('%') {
            let component = match self.parser.peek() {
                Spanned {
                    token: Token::Dotted(word),
                    spaced: false,
                    ..
                } => {
                    self.parser.next();
                    Some(word)
                }
                _ => None,
            };
            return match SpecialRegister::parse(name, component) {
                Some(special) => Ok(Operand::Special(special)),
                None => Err(error(&token, ParseErrorKind::Undeclared)),
            };
        }
        let offset = self.parser.offset()?;
        Ok(match self.find_variable(name) {
            Some(variable) => Operand::Local { variable, offset },
            None => Operand::Symbol {
                name: name.to_owned(),
                offset,
            },
        })
    }
}
