//! Tokens to a template: statements. The grammar is jinja2's.

use super::ast::{Expr, ExprId, For, Macro, Signature, Stmt, Target, Template};
use super::error::{Error, Kind, Result};
use super::lexer::{Token, tokenize};

/// Blocks and brackets within one another; no known template has more than 20.
const MAX_NESTING: usize = 100;

/// Parses `source`.
///
/// # Errors
/// What is not Jinja, and statements that load other templates.
pub fn parse(source: &str) -> Result<Template> {
    let mut parser = Parser {
        tokens: tokenize(source)?,
        at: 0,
        nesting: 0,
        loops: 0,
        exprs: Vec::new(),
        lines: Vec::new(),
    };
    let body = parser.statements(&[])?;
    Ok(Template {
        body,
        exprs: parser.exprs,
        lines: parser.lines,
    })
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: usize,
    /// Loops around the current place, in which `break` may stand.
    loops: usize,
    exprs: Vec<Expr>,
    lines: Vec<u32>,
}

impl Parser {
    pub fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub fn peek_second(&self) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + 1).min(last)].0
    }

    pub fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    pub fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    pub fn expect_op(&mut self, op: &str) -> Result<()> {
        match self.skip_op(op) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{op}'"))),
        }
    }

    pub fn expect_name(&mut self) -> Result<String> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<()> {
        if self.peek() != token {
            return Err(self.unexpected(what));
        }
        self.next();
        Ok(())
    }

    pub fn error(&self, message: impl Into<String>) -> Error {
        Error {
            kind: Kind::Syntax,
            message: format!("syntax error: {}", message.into()),
            line: Some(self.line()),
        }
    }

    pub fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.peek() {
            Token::Data(_) => "text".to_owned(),
            Token::VariableBegin => "'{{'".to_owned(),
            Token::VariableEnd => "'}}'".to_owned(),
            Token::BlockBegin => "'{%'".to_owned(),
            Token::BlockEnd => "'%}'".to_owned(),
            Token::Name(name) => format!("'{name}'"),
            Token::Str(_) => "a string".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Op(op) => format!("'{op}'"),
            Token::End => "the end of the template".to_owned(),
        };
        self.error(format!("{wanted} was expected, not {found}"))
    }

    /// Adds an expression that began on `line`.
    pub fn add(&mut self, expr: Expr, line: u32) -> ExprId {
        self.exprs.push(expr);
        self.lines.push(line);
        self.exprs.len() - 1
    }

    pub fn expr(&self, id: ExprId) -> &Expr {
        &self.exprs[id]
    }

    /// Runs `parse` one level deeper.
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error("too many levels of nesting"));
        }
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Statements up to a tag whose name is one of `ends`, at which the parser stops; up to the end
    /// of the source where there are none.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.nested(|parser| {
            let mut body = Vec::new();
            loop {
                match parser.peek().clone() {
                    Token::Data(text) => {
                        parser.next();
                        body.push(Stmt::Data(text));
                    }
                    Token::VariableBegin => {
                        parser.next();
                        body.push(Stmt::Output(parser.tuple(true, None)?));
                        parser.expect(&Token::VariableEnd, "'}}'")?;
                    }
                    Token::BlockBegin => {
                        parser.next();
                        if ends.iter().any(|end| parser.is_name(end)) {
                            return Ok(body);
                        }
                        body.push(parser.statement()?);
                        parser.expect(&Token::BlockEnd, "'%}'")?;
                    }
                    Token::End if ends.is_empty() => return Ok(body),
                    _ => {
                        let ends: Vec<_> = ends.iter().map(|end| format!("'{end}'")).collect();
                        return Err(parser.unexpected(&ends.join(" or ")));
                    }
                }
            }
        })
    }

    /// The body of a tag that has just been read, and its closing tag but for `%}`. Gives the name
    /// of that tag.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        self.expect(&Token::BlockEnd, "'%}'")?;
        let body = self.statements(ends)?;
        let end = self.expect_name()?;
        Ok((body, end))
    }

    fn statement(&mut self) -> Result<Stmt> {
        let name = self.expect_name()?;
        match name.as_str() {
            "if" => self.if_statement(),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "macro" => {
                let name = self.expect_name()?;
                let signature = self.signature()?;
                Ok(Stmt::Macro(Box::new(
                    self.macro_body(name, signature, "endmacro")?,
                )))
            }
            "call" => {
                let signature = match self.is_op("(") {
                    true => self.signature()?,
                    false => Signature::default(),
                };
                let call = self.expression()?;
                if !matches!(self.expr(call), Expr::Call(..)) {
                    return Err(self.error("a call was expected"));
                }
                let caller = self.macro_body("caller".to_owned(), signature, "endcall")?;
                Ok(Stmt::Call(call, Box::new(caller)))
            }
            "filter" => {
                let filter = self.filter(None)?;
                let filter = self.more_filters(filter)?;
                Ok(Stmt::Filter(filter, self.body(&["endfilter"])?.0))
            }
            "with" => {
                let mut values = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !values.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target()?;
                    self.expect_op("=")?;
                    values.push((target, self.expression()?));
                }
                Ok(Stmt::With(values, self.body(&["endwith"])?.0))
            }
            // What `transformers` puts around the assistant's words, to find them again.
            "generation" => Ok(Stmt::Scope(self.body(&["endgeneration"])?.0)),
            "autoescape" => {
                self.expression()?;
                Ok(Stmt::Scope(self.body(&["endautoescape"])?.0))
            }
            "block" => {
                let name = self.expect_name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                let body = self.body(&["endblock"])?.0;
                self.skip_name(&name);
                Ok(Stmt::Scope(body))
            }
            "break" | "continue" if self.loops == 0 => {
                Err(self.error(format!("'{name}' outside of a loop")))
            }
            "break" => Ok(Stmt::Break),
            "continue" => Ok(Stmt::Continue),
            "extends" | "include" | "import" | "from" => {
                Err(self.error(format!("'{name}': there are no other templates to load")))
            }
            other => Err(self.error(format!("unknown tag '{other}'"))),
        }
    }

    fn if_statement(&mut self) -> Result<Stmt> {
        let mut branches = Vec::new();
        let mut condition = Some(self.tuple(false, None)?);
        loop {
            let ends: &[&str] = match condition {
                Some(_) => &["elif", "else", "endif"],
                None => &["endif"],
            };
            let (body, end) = self.body(ends)?;
            branches.push((condition, body));
            condition = match end.as_str() {
                "elif" => Some(self.tuple(false, None)?),
                "else" => None,
                _ => return Ok(Stmt::If(branches)),
            };
        }
    }

    fn for_statement(&mut self) -> Result<Stmt> {
        let target = self.target()?;
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        let iter = self.tuple(false, Some("recursive"))?;
        let test = match self.skip_name("if") {
            true => Some(self.expression()?),
            false => None,
        };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let (body, end) = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = match end.as_str() {
            "else" => self.body(&["endfor"])?.0,
            _ => Vec::new(),
        };
        Ok(Stmt::For(Box::new(For {
            target,
            iter,
            test,
            recursive,
            body,
            otherwise,
        })))
    }

    fn set_statement(&mut self) -> Result<Stmt> {
        let target = self.target()?;
        if self.skip_op("=") {
            return Ok(Stmt::Set(target, self.tuple(true, None)?));
        }
        let filter = match self.is_op("|") {
            true => {
                self.next();
                let filter = self.filter(None)?;
                Some(self.more_filters(filter)?)
            }
            false => None,
        };
        Ok(Stmt::SetBlock(target, filter, self.body(&["endset"])?.0))
    }

    /// One target, or several with commas between them.
    fn target(&mut self) -> Result<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            if self.skip_op("(") {
                targets.push(self.nested(Parser::target)?);
                self.expect_op(")")?;
            } else {
                let name = self.expect_name()?;
                if matches!(
                    name.as_str(),
                    "true" | "false" | "none" | "True" | "False" | "None"
                ) {
                    return Err(self.error(format!("cannot assign to '{name}'")));
                }
                targets.push(match self.skip_op(".") {
                    true => Target::Attribute(name, self.expect_name()?),
                    false => Target::Name(name),
                });
            }
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
            if self.is_name("in") || self.is_op("=") || self.is_op(")") {
                break;
            }
        }
        match targets.pop() {
            Some(only) if targets.is_empty() && !tuple => Ok(only),
            last => Ok(Target::Tuple(targets.into_iter().chain(last).collect())),
        }
    }

    fn signature(&mut self) -> Result<Signature> {
        let mut signature = Signature::default();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !signature.params.is_empty() {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            let name = self.expect_name()?;
            let default = match self.skip_op("=") {
                true => Some(self.expression()?),
                false => None,
            };
            if default.is_none()
                && signature
                    .params
                    .iter()
                    .any(|(_, default)| default.is_some())
            {
                return Err(self.error("a parameter without a default follows one with a default"));
            }
            signature.params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(signature)
    }

    fn macro_body(&mut self, name: String, mut signature: Signature, end: &str) -> Result<Macro> {
        let first = self.exprs.len();
        let loops = std::mem::take(&mut self.loops);
        let (body, _) = self.body(&[end])?;
        self.loops = loops;
        let reads = |wanted: &str| {
            let names = self.exprs[first..].iter();
            names
                .into_iter()
                .any(|expr| matches!(expr, Expr::Name(name) if name == wanted))
        };
        signature.takes_rest = reads("varargs");
        signature.takes_named_rest = reads("kwargs");
        Ok(Macro {
            name,
            signature,
            body,
        })
    }
}
