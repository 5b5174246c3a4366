//! Variables, parameters and initial values.

use crate::error::{ParseErrorKind, Result};
use crate::module::{Initial, Variable};
use crate::parse::Parser;
use crate::parse::lexer::{Token, error};
use crate::ty::{Space, Ty};

/// Bytes one variable may take.
const MAX_VARIABLE_BYTES: u64 = 1 << 28;
/// Nesting of braces in an initial value.
const MAX_INITIAL_DEPTH: u32 = 8;

pub(crate) fn space(word: &str) -> Option<Space> {
    Some(match word {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}

impl Parser<'_> {
    /// One `.param` of a function's list, without the separator.
    pub(super) fn param(&mut self) -> Result<Variable> {
        let start = self.peek();
        match start.token {
            Token::Dotted("param") => {
                self.next();
            }
            Token::Dotted("reg") => {
                return Err(error(
                    &start,
                    ParseErrorKind::Call("register parameters".into()),
                ));
            }
            _ => return self.fail("`.param`"),
        }
        self.declarator(Space::Param, false)
    }

    /// A whole variable declaration with its semicolon.
    pub(super) fn variables(&mut self, is_extern: bool) -> Result<Vec<Variable>> {
        let start = self.peek();
        let Token::Dotted(word) = start.token else {
            return self.fail("a state space");
        };
        let Some(space) = space(word) else {
            return Err(error(&start, ParseErrorKind::UnknownDirective));
        };
        self.next();
        let first = self.declarator(space, is_extern)?;
        let mut variables = vec![first];
        while self.accept(b',') {
            let like = variables[0].clone();
            let unit = if like.size == 0 { 1 } else { like.align };
            variables.push(self.named(space, like.align, u64::from(unit), is_extern)?);
        }
        self.expect(b';')?;
        Ok(variables)
    }

    fn declarator(&mut self, space: Space, is_extern: bool) -> Result<Variable> {
        let mut align = None;
        let mut vector = 1;
        let mut ty = None;
        loop {
            let token = self.peek();
            let Token::Dotted(word) = token.token else {
                break;
            };
            self.next();
            match word {
                "align" => {
                    let value = self.small("an alignment", 1 << 12)?;
                    if !value.is_power_of_two() {
                        return Err(error(
                            &token,
                            ParseErrorKind::Expected("a power of two".into()),
                        ));
                    }
                    align = Some(value);
                }
                "v2" => vector = 2,
                "v4" => vector = 4,
                "ptr" => {
                    // The pointee's space and alignment say nothing about the parameter itself.
                    while let Token::Dotted("global" | "shared" | "local" | "const") =
                        self.peek().token
                    {
                        self.next();
                    }
                    if self.accept_dotted("align") {
                        self.small("an alignment", 1 << 12)?;
                    }
                }
                _ => match Ty::parse(word) {
                    Some(found) if found != Ty::Pred => ty = Some(found),
                    _ => return Err(error(&token, ParseErrorKind::UnknownDirective)),
                },
            }
        }
        let Some(ty) = ty else {
            return self.fail("a type");
        };
        let unit = ty.bytes() * vector;
        self.named(space, align.unwrap_or(unit), u64::from(unit), is_extern)
    }

    fn named(&mut self, space: Space, align: u32, unit: u64, is_extern: bool) -> Result<Variable> {
        let start = self.peek();
        let name = self.ident()?.to_owned();
        let too_large = || error(&start, ParseErrorKind::Limit("256 MiB a variable".into()));
        let mut size = unit;
        let mut is_unsized = false;
        while self.accept(b'[') {
            if self.accept(b']') {
                is_unsized = true;
                size = 0;
                continue;
            }
            let count = self.small("an array length", MAX_VARIABLE_BYTES)?;
            size = size.checked_mul(u64::from(count)).ok_or_else(too_large)?;
            self.expect(b']')?;
        }
        if size > MAX_VARIABLE_BYTES {
            return Err(too_large());
        }
        let mut initial = Vec::new();
        if self.accept(b'=') {
            let mut end = 0u64;
            self.initial(unit, &mut end, &mut initial, 0)?;
            if is_unsized {
                size = end;
                is_unsized = false;
            }
            if end > size {
                return Err(error(
                    &start,
                    ParseErrorKind::Limit("more initial values than elements".into()),
                ));
            }
        }
        if is_unsized && !(is_extern && space == Space::Shared) {
            return Err(error(
                &start,
                ParseErrorKind::Expected("an array length".into()),
            ));
        }
        Ok(Variable {
            name,
            space,
            align,
            size: u32::try_from(size).map_err(|_| too_large())?,
            is_unsized,
            initial,
        })
    }

    fn initial(
        &mut self,
        unit: u64,
        at: &mut u64,
        pieces: &mut Vec<Initial>,
        depth: u32,
    ) -> Result<()> {
        let token = self.peek();
        if self.accept(b'{') {
            if depth == MAX_INITIAL_DEPTH {
                return Err(error(&token, ParseErrorKind::Limit("nested braces".into())));
            }
            while !self.accept(b'}') {
                self.initial(unit, at, pieces, depth + 1)?;
                if !self.accept(b',') && !self.is_punct(b'}') {
                    return self.fail("`,` or `}`");
                }
            }
            return Ok(());
        }
        let offset = u32::try_from(*at)
            .map_err(|_| error(&token, ParseErrorKind::Limit("256 MiB a variable".into())))?;
        *at += unit;
        let negative = self.accept(b'-');
        let value = match self.peek().token {
            Token::Int(value) if negative => value.wrapping_neg(),
            Token::Int(value) => value,
            Token::F32(bits) => u64::from(bits),
            Token::F64(value) => {
                let value = if negative { -value } else { value };
                if unit == 4 {
                    u64::from((value as f32).to_bits())
                } else {
                    value.to_bits()
                }
            }
            Token::Ident(name) => {
                self.next();
                let symbol = if name == "generic" && self.accept(b'(') {
                    let symbol = self.ident()?.to_owned();
                    self.expect(b')')?;
                    symbol
                } else {
                    name.to_owned()
                };
                if unit != 8 {
                    return Err(error(
                        &token,
                        ParseErrorKind::Expected("an 8-byte element for an address".into()),
                    ));
                }
                let addend = self.offset()?;
                pieces.push(Initial::Address {
                    offset,
                    symbol,
                    addend,
                });
                return Ok(());
            }
            _ => return self.fail("an initial value"),
        };
        self.next();
        let bytes = &value.to_le_bytes()[..usize::try_from(unit.min(8)).unwrap_or(8)];
        match pieces.last_mut() {
            Some(Initial::Bytes {
                offset: start,
                bytes: run,
            }) if u64::from(*start) + run.len() as u64 == u64::from(offset) => {
                run.extend_from_slice(bytes);
            }
            _ => pieces.push(Initial::Bytes {
                offset,
                bytes: bytes.to_vec(),
            }),
        }
        Ok(())
    }

    /// `+8`, `-8`, `+-8` or nothing.
    pub(super) fn offset(&mut self) -> Result<i64> {
        let mut negative = false;
        let mut signed = false;
        while self.is_punct(b'+') || self.is_punct(b'-') {
            negative ^= self.next().token == Token::Punct(b'-');
            signed = true;
        }
        if !signed {
            return Ok(0);
        }
        match self.peek().token {
            Token::Int(value) => {
                self.next();
                let value = value.cast_signed();
                Ok(if negative {
                    value.wrapping_neg()
                } else {
                    value
                })
            }
            _ => self.fail("an offset"),
        }
    }
}
