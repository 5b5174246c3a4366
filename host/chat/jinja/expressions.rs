//! Tokens to a template: expressions, from the loosest binding to the tightest.

use super::ast::{Args, BinaryOp, CompareOp, Const, Expr, ExprId};
use super::error::Result;
use super::lexer::Token;
use super::parser::Parser;

impl Parser {
    pub(super) fn expression(&mut self) -> Result<ExprId> {
        self.nested(Parser::conditional)
    }

    /// One expression, or a tuple where commas follow; `conditional` allows `a if b else c`, `end` is
    /// a name before which a tuple may end with a comma.
    pub(super) fn tuple(&mut self, conditional: bool, end: Option<&str>) -> Result<ExprId> {
        let line = self.line();
        let mut items = Vec::new();
        let mut tuple = false;
        while !self.tuple_ends(end) {
            items.push(match conditional {
                true => self.expression()?,
                false => self.nested(Parser::or)?,
            });
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match items.first() {
            None if !tuple => Err(self.unexpected("an expression")),
            Some(&only) if !tuple => Ok(only),
            _ => Ok(self.add(Expr::Tuple(items), line)),
        }
    }

    fn tuple_ends(&self, end: Option<&str>) -> bool {
        matches!(
            self.peek(),
            Token::VariableEnd | Token::BlockEnd | Token::End
        ) || self.is_op(")")
            || end.is_some_and(|end| self.is_name(end))
    }

    fn conditional(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut then = self.or()?;
        while self.skip_name("if") {
            let test = self.or()?;
            let otherwise = match self.skip_name("else") {
                true => Some(self.nested(Parser::conditional)?),
                false => None,
            };
            let choice = Expr::If {
                test,
                then,
                otherwise,
            };
            then = self.add(choice, line);
        }
        Ok(then)
    }

    fn or(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.add(Expr::Or(left, right), line);
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.add(Expr::And(left, right), line);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<ExprId> {
        let line = self.line();
        if self.skip_name("not") {
            let inner = self.nested(Parser::not)?;
            return Ok(self.add(Expr::Not(inner), line));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<ExprId> {
        let line = self.line();
        let first = self.sum()?;
        let mut others = Vec::new();
        loop {
            let op = match self.peek() {
                Token::Op("==") => CompareOp::Eq,
                Token::Op("!=") => CompareOp::Ne,
                Token::Op("<") => CompareOp::Lt,
                Token::Op("<=") => CompareOp::Le,
                Token::Op(">") => CompareOp::Gt,
                Token::Op(">=") => CompareOp::Ge,
                Token::Name(name) if name == "in" => CompareOp::In,
                Token::Name(name) if name == "not" => {
                    if !matches!(self.peek_second(), Token::Name(name) if name == "in") {
                        break;
                    }
                    self.next();
                    CompareOp::NotIn
                }
                _ => break,
            };
            self.next();
            others.push((op, self.sum()?));
        }
        match others.is_empty() {
            true => Ok(first),
            false => Ok(self.add(Expr::Compare(first, others), line)),
        }
    }

    fn sum(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut left = self.concatenation()?;
        loop {
            let op = match self.peek() {
                Token::Op("+") => BinaryOp::Add,
                Token::Op("-") => BinaryOp::Sub,
                _ => return Ok(left),
            };
            self.next();
            let right = self.concatenation()?;
            left = self.add(Expr::Binary(op, left, right), line);
        }
    }

    fn concatenation(&mut self) -> Result<ExprId> {
        let line = self.line();
        let first = self.product()?;
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        match parts.len() {
            1 => Ok(first),
            _ => Ok(self.add(Expr::Concat(parts), line)),
        }
    }

    fn product(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut left = self.power()?;
        loop {
            let op = match self.peek() {
                Token::Op("*") => BinaryOp::Mul,
                Token::Op("/") => BinaryOp::Div,
                Token::Op("//") => BinaryOp::FloorDiv,
                Token::Op("%") => BinaryOp::Mod,
                _ => return Ok(left),
            };
            self.next();
            let right = self.power()?;
            left = self.add(Expr::Binary(op, left, right), line);
        }
    }

    fn power(&mut self) -> Result<ExprId> {
        let line = self.line();
        let mut left = self.unary(true)?;
        while self.skip_op("**") {
            let right = self.unary(true)?;
            left = self.add(Expr::Binary(BinaryOp::Pow, left, right), line);
        }
        Ok(left)
    }

    fn unary(&mut self, filters: bool) -> Result<ExprId> {
        let line = self.line();
        let mut expr = if self.skip_op("-") {
            let inner = self.nested(|parser| parser.unary(false))?;
            self.add(Expr::Negative(inner), line)
        } else if self.skip_op("+") {
            let inner = self.nested(|parser| parser.unary(false))?;
            self.add(Expr::Positive(inner), line)
        } else {
            self.primary()?
        };
        expr = self.postfix(expr)?;
        if !filters {
            return Ok(expr);
        }
        loop {
            if self.is_op("|") {
                self.next();
                expr = self.filter(Some(expr))?;
            } else if self.is_name("is") {
                self.next();
                expr = self.test(expr)?;
            } else if self.is_op("(") {
                expr = self.call(expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<ExprId> {
        let line = self.line();
        let expr = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match name.as_str() {
                    "true" | "True" => Expr::Const(Const::Bool(true)),
                    "false" | "False" => Expr::Const(Const::Bool(false)),
                    "none" | "None" => Expr::Const(Const::None),
                    _ => Expr::Name(name),
                }
            }
            Token::Str(mut text) => {
                self.next();
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Expr::Const(Const::Str(text))
            }
            Token::Int(number) => {
                self.next();
                Expr::Const(Const::Int(number))
            }
            Token::Float(number) => {
                self.next();
                Expr::Const(Const::Float(number))
            }
            Token::Op("(") => {
                self.next();
                // Unlike elsewhere, nothing at all is the empty tuple here.
                let empty = self.is_op(")");
                let inner = match empty {
                    true => self.add(Expr::Tuple(Vec::new()), line),
                    false => self.tuple(true, None)?,
                };
                self.expect_op(")")?;
                return Ok(inner);
            }
            Token::Op("[") => {
                self.next();
                let items = self.items("]", Parser::expression)?;
                Expr::List(items)
            }
            Token::Op("{") => {
                self.next();
                Expr::Dict(self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(self.add(expr, line))
    }

    /// What `item` reads, with commas between, up to the bracket `end`.
    fn items<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Parser) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn postfix(&mut self, mut expr: ExprId) -> Result<ExprId> {
        loop {
            let line = self.line();
            if self.skip_op(".") {
                let access = match self.next() {
                    Token::Name(name) => Expr::Attribute(expr, name),
                    Token::Int(index) => {
                        let index = self.add(Expr::Const(Const::Int(index)), line);
                        Expr::Item(expr, index)
                    }
                    _ => return Err(self.error("a name or number was expected after '.'")),
                };
                expr = self.add(access, line);
            } else if self.skip_op("[") {
                let mut subscripts = self.items("]", |parser| parser.subscript(expr))?;
                expr = match subscripts.len() {
                    1 => subscripts.remove(0),
                    _ => return Err(self.error("one subscript was expected")),
                };
            } else if self.is_op("(") {
                expr = self.call(expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn subscript(&mut self, of: ExprId) -> Result<ExprId> {
        let line = self.line();
        let mut bounds = [None; 3];
        let mut count = 0;
        loop {
            if !self.is_op(":") && !self.is_op("]") && !self.is_op(",") {
                bounds[count] = Some(self.expression()?);
            }
            if count == 2 || !self.skip_op(":") {
                break;
            }
            count += 1;
        }
        let access = match (count, bounds[0]) {
            (0, Some(index)) => Expr::Item(of, index),
            (0, None) => return Err(self.unexpected("an expression")),
            _ => Expr::Slice(of, bounds),
        };
        Ok(self.add(access, line))
    }

    fn call(&mut self, callee: ExprId) -> Result<ExprId> {
        let line = self.line();
        let args = self.args()?;
        Ok(self.add(Expr::Call(callee, args), line))
    }

    fn args(&mut self) -> Result<Args> {
        let mut args = Args::default();
        self.expect_op("(")?;
        let mut first = true;
        while !self.skip_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("*") {
                args.rest = Some(self.expression()?);
            } else if self.skip_op("**") {
                args.named_rest = Some(self.expression()?);
            } else if matches!(
                (self.peek(), self.peek_second()),
                (Token::Name(_), Token::Op("="))
            ) {
                let name = self.expect_name()?;
                self.next();
                args.named.push((name, self.expression()?));
            } else if args.named.is_empty() && args.rest.is_none() && args.named_rest.is_none() {
                args.positional.push(self.expression()?);
            } else {
                return Err(self.error("a positional argument follows a named one"));
            }
        }
        Ok(args)
    }

    /// A filter whose bar has been read, or a block's.
    pub(super) fn filter(&mut self, input: Option<ExprId>) -> Result<ExprId> {
        let line = self.line();
        let name = self.dotted_name()?;
        let args = match self.is_op("(") {
            true => self.args()?,
            false => Args::default(),
        };
        Ok(self.add(Expr::Filter { input, name, args }, line))
    }

    /// The filters that follow `filter`.
    pub(super) fn more_filters(&mut self, mut filter: ExprId) -> Result<ExprId> {
        while self.skip_op("|") {
            filter = self.filter(Some(filter))?;
        }
        Ok(filter)
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    fn test(&mut self, input: ExprId) -> Result<ExprId> {
        let line = self.line();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let bare = match self.peek() {
            Token::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(*op, "[" | "{"),
            _ => false,
        };
        let mut args = Args::default();
        if self.is_op("(") {
            args = self.args()?;
        } else if bare {
            if self.is_name("is") {
                return Err(self.error("tests cannot be chained with 'is'"));
            }
            let argument = self.primary()?;
            args.positional.push(self.postfix(argument)?);
        }
        let test = self.add(Expr::Test { input, name, args }, line);
        Ok(match negated {
            true => self.add(Expr::Not(test), line),
            false => test,
        })
    }
}
