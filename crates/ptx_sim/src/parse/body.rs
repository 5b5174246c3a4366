//! Function bodies: scopes, registers, labels and instructions.

use std::collections::HashMap;

use crate::error::{ParseErrorKind, Result};
use crate::module::{Function, Instruction, Item, LabelId, Operand, Register, RegisterId};
use crate::parse::Parser;
use crate::parse::lexer::{Spanned, Token, error};
use crate::ty::Ty;

const MAX_SCOPES: usize = 64;
const MAX_OPERANDS: usize = 64;

/// Names of one brace level.
#[derive(Default)]
struct Scope {
    id: usize,
    registers: HashMap<String, RegisterId>,
    /// `.reg .b32 %r<9>` declares `%r0` to `%r8`; each gets an id when it is first used.
    ranges: HashMap<String, (u64, Ty)>,
    variables: HashMap<String, u32>,
}

pub(super) struct Body<'p, 'a> {
    pub parser: &'p mut Parser<'a>,
    function: &'p mut Function,
    scopes: Vec<Scope>,
    parents: Vec<usize>,
    labels: HashMap<(usize, String), LabelId>,
    /// Names in each branch table, resolved when every label is known.
    tables: Vec<(String, usize, Vec<Spanned<'a>>)>,
    instruction_scopes: Vec<usize>,
}

/// Parses up to and including the closing brace.
pub(super) fn parse(parser: &mut Parser<'_>, function: &mut Function) -> Result<()> {
    let mut body = Body {
        parser,
        function,
        scopes: vec![Scope::default()],
        parents: vec![0],
        labels: HashMap::new(),
        tables: Vec::new(),
        instruction_scopes: Vec::new(),
    };
    while !body.scopes.is_empty() {
        body.statement()?;
    }
    body.resolve_labels()
}

impl<'a> Body<'_, 'a> {
    fn statement(&mut self) -> Result<()> {
        let start = self.parser.peek();
        match start.token {
            Token::Punct(b'{') => {
                self.parser.next();
                if self.scopes.len() == MAX_SCOPES {
                    return Err(error(&start, ParseErrorKind::Limit("nested braces".into())));
                }
                let parent = self.scopes.last().map_or(0, |scope| scope.id);
                self.parents.push(parent);
                self.scopes.push(Scope {
                    id: self.parents.len() - 1,
                    ..Scope::default()
                });
                Ok(())
            }
            Token::Punct(b'}') => {
                self.parser.next();
                self.scopes.pop();
                Ok(())
            }
            Token::Punct(b';') => {
                self.parser.next();
                Ok(())
            }
            Token::Dotted(word) => self.directive(word, start),
            Token::Ident(_) if self.parser.peek_second().token == Token::Punct(b':') => {
                self.label()
            }
            Token::Ident(_) | Token::Punct(b'@') => self.instruction(),
            _ => self.parser.fail("an instruction, a label or `}`"),
        }
    }

    fn directive(&mut self, word: &str, start: Spanned<'a>) -> Result<()> {
        match word {
            "reg" => self.registers(),
            "loc" | "file" => {
                self.parser.skip_line(start.line);
                Ok(())
            }
            "pragma" => self.parser.skip_past(b';'),
            "local" | "shared" | "param" | "const" | "global" => {
                let variables = self.parser.variables(false)?;
                for variable in variables {
                    let index = u32::try_from(self.function.variables.len()).unwrap_or(u32::MAX);
                    let Some(scope) = self.scopes.last_mut() else {
                        break;
                    };
                    if scope
                        .variables
                        .insert(variable.name.clone(), index)
                        .is_some()
                    {
                        return Err(error(&start, ParseErrorKind::Duplicate));
                    }
                    self.function.variables.push(variable);
                }
                Ok(())
            }
            _ => Err(error(&start, ParseErrorKind::UnknownDirective)),
        }
    }

    fn registers(&mut self) -> Result<()> {
        self.parser.next();
        let token = self.parser.next();
        let Some(ty) = (match token.token {
            Token::Dotted(word) => Ty::parse(word),
            _ => None,
        }) else {
            return Err(error(
                &token,
                ParseErrorKind::Expected("a register type".into()),
            ));
        };
        if ty == Ty::B128 {
            return Err(error(&token, ParseErrorKind::UnknownDirective));
        }
        loop {
            let at = self.parser.peek();
            let name = self.parser.ident()?.to_owned();
            let duplicate = if self.parser.accept(b'<') {
                let count = match self.parser.next().token {
                    Token::Int(count) => count,
                    _ => return self.parser.fail("a register count"),
                };
                self.parser.expect(b'>')?;
                let Some(scope) = self.scopes.last_mut() else {
                    break;
                };
                scope.ranges.insert(name, (count, ty)).is_some()
            } else {
                let id = self.new_register(name.clone(), ty);
                let Some(scope) = self.scopes.last_mut() else {
                    break;
                };
                scope.registers.insert(name, id).is_some()
            };
            if duplicate {
                return Err(error(&at, ParseErrorKind::Duplicate));
            }
            if !self.parser.accept(b',') {
                break;
            }
        }
        self.parser.expect(b';')
    }

    fn new_register(&mut self, name: String, ty: Ty) -> RegisterId {
        let id = u32::try_from(self.function.registers.len()).unwrap_or(u32::MAX);
        self.function.registers.push(Register { name, ty });
        id
    }

    pub(super) fn find_register(&mut self, name: &str) -> Option<RegisterId> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[prefix.len()..];
        let canonical = !digits.starts_with('0') || digits == "0";
        let number = digits.parse::<u64>().ok().filter(|_| canonical);
        for depth in (0..self.scopes.len()).rev() {
            if let Some(&id) = self.scopes[depth].registers.get(name) {
                return Some(id);
            }
            let Some(&(count, ty)) = self.scopes[depth].ranges.get(prefix) else {
                continue;
            };
            if number.is_some_and(|number| number < count) {
                let id = self.new_register(name.to_owned(), ty);
                self.scopes[depth].registers.insert(name.to_owned(), id);
                return Some(id);
            }
        }
        None
    }

    pub(super) fn find_variable(&self, name: &str) -> Option<u32> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.variables.get(name).copied())
    }

    fn scope_id(&self) -> usize {
        self.scopes.last().map_or(0, |scope| scope.id)
    }

    fn label(&mut self) -> Result<()> {
        let at = self.parser.peek();
        let name = self.parser.ident()?.to_owned();
        self.parser.expect(b':')?;
        if self.parser.accept_dotted("branchtargets") {
            let mut targets = Vec::new();
            loop {
                targets.push(self.parser.peek());
                self.parser.ident()?;
                if !self.parser.accept(b',') {
                    break;
                }
            }
            self.parser.expect(b';')?;
            self.tables.push((name, self.scope_id(), targets));
            return Ok(());
        }
        if let Token::Dotted("callprototype" | "calltargets") = self.parser.peek().token {
            return self.parser.skip_past(b';');
        }
        let id = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        if self.labels.insert((self.scope_id(), name), id).is_some() {
            return Err(error(&at, ParseErrorKind::Duplicate));
        }
        self.function.items.push(Item::Label(id));
        Ok(())
    }

    fn instruction(&mut self) -> Result<()> {
        let start = self.parser.peek();
        let mut guard = None;
        if self.parser.accept(b'@') {
            let negated = self.parser.accept(b'!');
            let at = self.parser.peek();
            let name = self.parser.ident()?;
            let Some(id) = self.find_register(name) else {
                return Err(error(&at, ParseErrorKind::Undeclared));
            };
            if self.function.registers[id as usize].ty != Ty::Pred {
                return Err(error(
                    &at,
                    ParseErrorKind::Operand("not a predicate".into()),
                ));
            }
            guard = Some((id, negated));
        }
        let mut opcode = self.parser.ident()?.to_owned();
        while let Token::Dotted(word) = self.parser.peek().token {
            if self.parser.peek().spaced {
                break;
            }
            opcode.push('.');
            opcode.push_str(word);
            self.parser.next();
        }
        let mut operands = Vec::new();
        while !self.parser.is_punct(b';') {
            if !operands.is_empty() {
                self.parser.expect(b',')?;
            }
            if operands.len() == MAX_OPERANDS {
                return Err(error(&start, ParseErrorKind::Limit("operands".into())));
            }
            operands.push(self.operand()?);
        }
        let end = self.parser.peek().start;
        self.parser.expect(b';')?;
        self.instruction_scopes.push(self.scope_id());
        self.function.items.push(Item::Instruction(Instruction {
            line: start.line,
            column: start.column,
            opcode,
            text: self.parser.text[start.start..end].trim_end().to_owned(),
            guard,
            operands,
        }));
        Ok(())
    }

    /// Turns the symbols that name labels into labels, innermost scope first.
    fn resolve_labels(self) -> Result<()> {
        let find = |mut scope: usize, name: &str| loop {
            if let Some(&id) = self.labels.get(&(scope, name.to_owned())) {
                return Some(id);
            }
            if scope == 0 {
                return None;
            }
            scope = self.parents[scope];
        };
        let instructions = self
            .function
            .items
            .iter_mut()
            .filter_map(|item| match item {
                Item::Instruction(instruction) => Some(instruction),
                Item::Label(_) => None,
            });
        for (instruction, &scope) in instructions.zip(&self.instruction_scopes) {
            for operand in &mut instruction.operands {
                if let Operand::Symbol { name, offset: 0 } = operand
                    && let Some(id) = find(scope, name)
                {
                    *operand = Operand::Label(id);
                }
            }
        }
        for (name, scope, targets) in &self.tables {
            let mut ids = Vec::with_capacity(targets.len());
            for target in targets {
                match find(*scope, target.text) {
                    Some(id) => ids.push(id),
                    None => return Err(error(target, ParseErrorKind::Undeclared)),
                }
            }
            self.function.branch_tables.push((name.clone(), ids));
        }
        self.function.label_count = self.labels.len();
        Ok(())
    }
}
