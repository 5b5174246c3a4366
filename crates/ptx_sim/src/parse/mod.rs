//! PTX text to functions and variables.

mod body;
mod declaration;
pub(crate) mod lexer;
mod operand;

use std::collections::{HashMap, HashSet};

pub(crate) use declaration::space;

use crate::error::{ParseErrorKind, Result};
use crate::module::{Function, LaunchBounds, Param, Variable};
use crate::parse::lexer::{Spanned, Token, error};

/// A whole text, parsed but not decoded.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub functions: Vec<Function>,
    pub variables: Vec<Variable>,
    /// Functions that are declared without a body.
    pub declared: HashSet<String>,
}

pub(crate) fn parse(text: &str) -> Result<Parsed> {
    let tokens = lexer::tokenize(text)?;
    let mut parser = Parser {
        text,
        tokens,
        at: 0,
    };
    parser.module()
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Spanned<'a> {
        self.tokens[self.at]
    }

    /// The token after the next.
    fn peek_second(&self) -> Spanned<'a> {
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Spanned<'a> {
        let token = self.tokens[self.at];
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is_punct(&self, byte: u8) -> bool {
        self.peek().token == Token::Punct(byte)
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.is_punct(byte);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) {
            Ok(())
        } else {
            self.fail(&format!("`{}`", char::from(byte)))
        }
    }

    fn accept_dotted(&mut self, word: &str) -> bool {
        let found = self.peek().token == Token::Dotted(word);
        if found {
            self.next();
        }
        found
    }

    fn fail<T>(&self, expected: &str) -> Result<T> {
        Err(error(
            &self.peek(),
            ParseErrorKind::Expected(expected.to_owned()),
        ))
    }

    fn ident(&mut self) -> Result<&'a str> {
        match self.peek().token {
            Token::Ident(name) => {
                self.next();
                Ok(name)
            }
            _ => self.fail("a name"),
        }
    }

    fn small(&mut self, what: &str, limit: u64) -> Result<u32> {
        let token = self.peek();
        match token.token {
            Token::Int(value) if value <= limit => {
                self.next();
                Ok(u32::try_from(value).unwrap_or(u32::MAX))
            }
            Token::Int(_) => Err(error(&token, ParseErrorKind::Limit(what.to_owned()))),
            _ => self.fail(what),
        }
    }

    /// Skips what is left of the line: `.file` and `.loc` end without a semicolon.
    fn skip_line(&mut self, line: u32) {
        while self.peek().line == line && self.peek().token != Token::End {
            self.next();
        }
    }

    fn skip_past(&mut self, byte: u8) -> Result<()> {
        while !self.is_punct(byte) {
            if self.peek().token == Token::End {
                return self.expect(byte);
            }
            self.next();
        }
        self.expect(byte)
    }

    fn module(&mut self) -> Result<Parsed> {
        let mut parsed = Parsed {
            functions: Vec::new(),
            variables: Vec::new(),
            declared: HashSet::new(),
        };
        let mut variable_names: HashMap<String, usize> = HashMap::new();
        let mut function_names = HashSet::new();
        loop {
            let start = self.peek();
            let Token::Dotted(word) = start.token else {
                return if start.token == Token::End {
                    Ok(parsed)
                } else {
                    self.fail("a directive")
                };
            };
            match word {
                "version" => {
                    self.next();
                    match self.next().token {
                        Token::F64(_) | Token::Int(_) => {}
                        _ => return self.fail("a version number"),
                    }
                }
                "target" => {
                    self.next();
                    self.ident()?;
                    while self.accept(b',') {
                        self.ident()?;
                    }
                }
                "address_size" => {
                    self.next();
                    let token = self.next();
                    if token.token != Token::Int(64) {
                        return Err(error(&token, ParseErrorKind::Expected("64".into())));
                    }
                }
                "file" | "loc" => self.skip_line(start.line),
                "pragma" => self.skip_past(b';')?,
                "section" => self.skip_past(b'}')?,
                _ => self.declaration(&mut parsed, &mut variable_names, &mut function_names)?,
            }
        }
    }

    fn declaration(
        &mut self,
        parsed: &mut Parsed,
        variable_names: &mut HashMap<String, usize>,
        function_names: &mut HashSet<String>,
    ) -> Result<()> {
        let mut is_extern = false;
        loop {
            match self.peek().token {
                Token::Dotted("extern") => is_extern = true,
                Token::Dotted("visible" | "weak" | "common") => {}
                _ => break,
            }
            self.next();
        }
        let start = self.peek();
        match start.token {
            Token::Dotted("entry" | "func") => {
                let Some(function) = self.function(&mut parsed.declared)? else {
                    return Ok(());
                };
                if !function_names.insert(function.name.clone()) {
                    return Err(error(&start, ParseErrorKind::Duplicate));
                }
                parsed.functions.push(function);
                Ok(())
            }
            Token::Dotted(_) => {
                for variable in self.variables(is_extern)? {
                    match variable_names.get(&variable.name) {
                        Some(&index) if parsed.variables[index].is_unsized || is_extern => {}
                        Some(_) => return Err(error(&start, ParseErrorKind::Duplicate)),
                        None => {
                            variable_names.insert(variable.name.clone(), parsed.variables.len());
                            parsed.variables.push(variable);
                        }
                    }
                }
                Ok(())
            }
            _ => self.fail("a declaration"),
        }
    }

    /// Parses an `.entry` or `.func`; `None` for a declaration without a body.
    fn function(&mut self, declared: &mut HashSet<String>) -> Result<Option<Function>> {
        let line = self.peek().line;
        let is_entry = self.next().token == Token::Dotted("entry");
        let returns = if !is_entry && self.is_punct(b'(') {
            self.params()?
        } else {
            Vec::new()
        };
        let name = self.ident()?.to_owned();
        let params = if self.is_punct(b'(') {
            self.params()?
        } else {
            Vec::new()
        };
        let mut bounds = LaunchBounds::default();
        loop {
            let token = self.peek();
            let Token::Dotted(word) = token.token else {
                break;
            };
            self.next();
            match word {
                "maxntid" => bounds.max_threads = Some(self.extent()?),
                "reqntid" => bounds.required_threads = Some(self.extent()?),
                "minnctapersm" => bounds.min_blocks = Some(self.small("a block count", 1 << 16)?),
                "maxnctapersm" | "maxnreg" => {
                    self.small("a count", 1 << 16)?;
                }
                "noreturn" => {}
                "pragma" => self.skip_past(b';')?,
                _ => return Err(error(&token, ParseErrorKind::UnknownDirective)),
            }
        }
        if self.accept(b';') {
            declared.insert(name);
            return Ok(None);
        }
        self.expect(b'{')?;
        let mut function = Function {
            name,
            is_entry,
            line,
            params,
            returns,
            registers: Vec::new(),
            variables: Vec::new(),
            items: Vec::new(),
            label_count: 0,
            branch_tables: Vec::new(),
            bounds,
        };
        body::parse(self, &mut function)?;
        Ok(Some(function))
    }

    fn extent(&mut self) -> Result<[u32; 3]> {
        let mut extent = [1; 3];
        extent[0] = self.small("a block size", 1024)?;
        for axis in &mut extent[1..] {
            if !self.accept(b',') {
                break;
            }
            *axis = self.small("a block size", 1024)?;
        }
        Ok(extent)
    }

    fn params(&mut self) -> Result<Vec<Param>> {
        self.expect(b'(')?;
        let mut params: Vec<Param> = Vec::new();
        let mut end = 0u32;
        while !self.accept(b')') {
            if !params.is_empty() {
                self.expect(b',')?;
            }
            let start = self.peek();
            let variable = self.param()?;
            let offset = end.next_multiple_of(variable.align);
            end = offset + variable.size;
            if end > 1 << 15 {
                return Err(error(
                    &start,
                    ParseErrorKind::Limit("32 KiB of parameters".into()),
                ));
            }
            params.push(Param {
                name: variable.name,
                size: variable.size,
                align: variable.align,
                offset,
            });
        }
        Ok(params)
    }
}
