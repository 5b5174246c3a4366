//! Evaluates expressions.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{Args, BinaryOp, CompareOp, Const, Expr, ExprId};
use super::error::{Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::text::{Source, Text};
use super::value::{List, ListKind, Value};
use super::{filters, format, functions, methods, predicates, print};

impl<'t> Interpreter<'t> {
    pub(super) fn eval(&mut self, id: ExprId) -> Result<Value> {
        self.descend()?;
        let value = self.evaluate(id);
        self.ascend();
        value.map_err(|error| error.at(self.template.lines[id]))
    }

    fn evaluate(&mut self, id: ExprId) -> Result<Value> {
        let template = self.template;
        match &template.exprs[id] {
            Expr::Const(constant) => Ok(self.constant(constant)?),
            Expr::Name(name) => Ok(self
                .lookup(name)
                .or_else(|| functions::find(name))
                .unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined")))),
            Expr::List(items) => Value::list(self.eval_all(items)?),
            Expr::Tuple(items) => Value::tuple(self.eval_all(items)?),
            Expr::Dict(entries) => {
                let mut evaluated = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    evaluated.push((self.eval(*key)?, self.eval(*value)?));
                }
                Value::dict(evaluated, self.budget)
            }
            Expr::Filter { .. } => self.eval_filter(id, None),
            Expr::Test { input, name, args } => {
                let input = self.eval(*input)?;
                let args = self.arguments(args)?;
                Ok(Value::Bool(predicates::apply(
                    self,
                    name,
                    &input,
                    &args.positional,
                )?))
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.eval(*inner)?.is_true())),
            Expr::Negative(inner) => match self.eval(*inner)? {
                Value::Float(number, source) => Ok(Value::Float(-number, source)),
                other => match other.as_int().and_then(i64::checked_neg) {
                    Some(number) => Ok(Value::Int(number, other.source())),
                    None => Err(failed(format!(
                        "bad operand for -: '{}'",
                        other.type_name()
                    ))),
                },
            },
            Expr::Positive(inner) => match self.eval(*inner)? {
                number @ (Value::Float(..) | Value::Int(..)) => Ok(number),
                other => Err(failed(format!(
                    "bad operand for +: '{}'",
                    other.type_name()
                ))),
            },
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.eval(*left)?, self.eval(*right)?);
                self.binary(*op, &left, &right)
            }
            Expr::And(left, right) => match self.eval(*left)? {
                left if left.is_true() => self.eval(*right),
                left => Ok(left),
            },
            Expr::Or(left, right) => match self.eval(*left)? {
                left if left.is_true() => Ok(left),
                _ => self.eval(*right),
            },
            Expr::Compare(first, others) => {
                let mut left = self.eval(*first)?;
                for (op, right) in others {
                    let right = self.eval(*right)?;
                    if !self.compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Concat(parts) => {
                let mut text = Text::default();
                for part in parts {
                    let part = self.eval(*part)?;
                    let part = print::to_text(&part, self.budget)?;
                    self.budget.bytes(part.len())?;
                    text.push_text(&part);
                }
                Ok(Value::text(text))
            }
            Expr::If {
                test,
                then,
                otherwise,
            } => match (self.eval(*test)?.is_true(), otherwise) {
                (true, _) => self.eval(*then),
                (false, Some(otherwise)) => self.eval(*otherwise),
                (false, None) => Ok(Value::undefined("the condition has no else")),
            },
            Expr::Attribute(object, name) => {
                let object = self.eval(*object)?;
                self.attribute(&object, name)
            }
            Expr::Item(object, index) => {
                let (object, index) = (self.eval(*object)?, self.eval(*index)?);
                self.item(&object, &index)
            }
            Expr::Slice(object, bounds) => {
                let object = self.eval(*object)?;
                let mut values = [None, None, None];
                for (value, bound) in values.iter_mut().zip(bounds) {
                    if let Some(bound) = bound {
                        *value = Some(self.eval(*bound)?);
                    }
                }
                self.slice(&object, values)
            }
            Expr::Call(..) => self.eval_call(id, None),
        }
    }

    fn constant(&mut self, constant: &Const) -> Result<Value> {
        Ok(match constant {
            Const::None => Value::None,
            Const::Bool(value) => Value::Bool(*value),
            Const::Int(number) => Value::Int(*number, Source::Template),
            Const::Float(number) => Value::Float(*number, Source::Template),
            Const::Str(text) => {
                self.budget.bytes(text.len())?;
                Value::str(text)
            }
        })
    }

    fn eval_all(&mut self, ids: &'t [ExprId]) -> Result<Vec<Value>> {
        ids.iter().map(|&id| self.eval(id)).collect()
    }

    fn arguments(&mut self, args: &'t Args) -> Result<CallArgs> {
        let mut call = CallArgs {
            positional: self.eval_all(&args.positional)?,
            ..CallArgs::default()
        };
        for (name, value) in &args.named {
            call.named.push((name.clone(), self.eval(*value)?));
        }
        if let Some(rest) = args.rest {
            let rest = self.eval(rest)?;
            call.positional.extend(rest.elements(self.budget)?);
        }
        if let Some(rest) = args.named_rest {
            let Value::Dict(rest) = self.eval(rest)? else {
                return Err(failed("what follows ** is no mapping"));
            };
            for (name, value) in &rest.entries {
                let Value::Str(name) = name else {
                    return Err(failed("keywords must be strings"));
                };
                call.foreign_names |= name.whole_source() != Source::Template;
                call.named.push((name.as_str().to_owned(), value.clone()));
            }
        }
        Ok(call)
    }

    /// The filter `id`, of `input` where it is a block's.
    pub(super) fn eval_filter(&mut self, id: ExprId, input: Option<Value>) -> Result<Value> {
        let template = self.template;
        let Expr::Filter {
            input: inner,
            name,
            args,
        } = &template.exprs[id]
        else {
            return Err(failed("a filter was expected"));
        };
        let input = match (inner, input) {
            // The block's text goes to the first filter of a chain.
            (Some(inner), Some(block)) => self.eval_filter(*inner, Some(block))?,
            (Some(inner), None) => self.eval(*inner)?,
            (None, block) => block.unwrap_or(Value::None),
        };
        let args = self.arguments(args)?;
        filters::apply(self, name, input, args).map_err(|error| error.at(template.lines[id]))
    }

    /// The call `id`, with `caller` for the macro where it is a call block's.
    pub(super) fn eval_call(&mut self, id: ExprId, caller: Option<Value>) -> Result<Value> {
        let template = self.template;
        let Expr::Call(callee, args) = &template.exprs[id] else {
            return Err(failed("a call was expected"));
        };
        let callee = self.eval(*callee)?;
        let mut args = self.arguments(args)?;
        if let Some(caller) = caller {
            args.named.push(("caller".to_owned(), caller));
        }
        self.call(&callee, args)
            .map_err(|error| error.at(template.lines[id]))
    }

    pub(super) fn call(&mut self, callee: &Value, args: CallArgs) -> Result<Value> {
        match callee {
            Value::Macro(index) => self.call_macro(*index, args),
            Value::Loop(state) => self.call_loop(&state.clone(), &args),
            Value::Method(method) => methods::call(self, &method.0, &method.1, args),
            Value::Function(name) => functions::call(self, name, args),
            Value::Undefined(what) => Err(failed(&**what)),
            other => Err(failed(format!(
                "'{}' object is not callable",
                other.type_name()
            ))),
        }
    }

    /// `object.name`: an attribute, or else an item.
    pub(super) fn attribute(&mut self, object: &Value, name: &str) -> Result<Value> {
        if let Value::Undefined(what) = object {
            return Err(failed(&**what));
        }
        if let Some(value) = self.own_attribute(object, name) {
            return Ok(value);
        }
        let item = object.item(&Value::str(name), self.budget)?;
        Ok(item.unwrap_or_else(|| missing(object, name)))
    }

    /// `object[index]`: an item, or else an attribute.
    pub(super) fn item(&mut self, object: &Value, index: &Value) -> Result<Value> {
        if let Value::Undefined(what) = object {
            return Err(failed(&**what));
        }
        if let Some(value) = object.item(index, self.budget)? {
            return Ok(value);
        }
        let name = index.as_str();
        let value = name.and_then(|name| self.own_attribute(object, name));
        Ok(value.unwrap_or_else(|| missing(object, name.unwrap_or("the index"))))
    }

    fn own_attribute(&self, object: &Value, name: &str) -> Option<Value> {
        match object {
            Value::Namespace(index) => {
                let field = self.namespaces[*index]
                    .iter()
                    .find(|(field, _)| field == name);
                field.map(|(_, value)| value.clone())
            }
            Value::Loop(state) => methods::loop_attribute(state, name),
            Value::Macro(_) if name == "name" => Some(Value::str("macro")),
            _ => None,
        }
        .or_else(|| {
            methods::has(object, name)
                .then(|| Value::Method(Rc::new((object.clone(), name.to_owned()))))
        })
    }

    fn slice(&mut self, object: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
        let len = match object {
            Value::List(list) if list.kind != ListKind::View => list.items.len(),
            Value::Str(text) => text.count(),
            Value::Undefined(what) => return Err(failed(&**what)),
            other => return Ok(missing(other, "a slice")),
        };
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound {
                None | Some(Value::None) => None,
                Some(bound) => match bound.as_int() {
                    Some(bound) => Some(bound),
                    None => return Ok(missing(object, "a slice")),
                },
            };
        }
        let Some(indices) = slice_indices(len, numbers) else {
            return Err(failed("slice step cannot be zero"));
        };
        match object {
            Value::Str(text) => {
                self.budget.bytes(text.len())?;
                let offsets: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).collect();
                let offset = |index: usize| offsets.get(index).copied().unwrap_or(text.len());
                let mut out = text.like();
                for index in indices {
                    out.push_slice(text, offset(index)..offset(index + 1));
                }
                Ok(Value::text(out))
            }
            Value::List(list) => {
                self.budget.spend(indices.len() as u64 / 8)?;
                let items = indices.iter().map(|&index| list.items[index].clone());
                same_kind(list, items.collect())
            }
            other => Ok(other.clone()),
        }
    }

    fn compare(&mut self, op: CompareOp, left: &Value, right: &Value) -> Result<bool> {
        let budget = self.budget;
        let order =
            |wanted: fn(Ordering) -> bool| Ok(left.compare(right, budget)?.is_some_and(wanted));
        match op {
            CompareOp::Eq => left.equals(right, budget),
            CompareOp::Ne => Ok(!left.equals(right, budget)?),
            CompareOp::Lt => order(Ordering::is_lt),
            CompareOp::Le => order(Ordering::is_le),
            CompareOp::Gt => order(Ordering::is_gt),
            CompareOp::Ge => order(Ordering::is_ge),
            CompareOp::In => right.contains(left, budget),
            CompareOp::NotIn => Ok(!right.contains(left, budget)?),
        }
    }

    pub(super) fn binary(&mut self, op: BinaryOp, left: &Value, right: &Value) -> Result<Value> {
        if let Value::Undefined(what) = left {
            return Err(failed(&**what));
        }
        match (op, left, right) {
            (BinaryOp::Mod, Value::Str(text), args) => {
                return format::percent(text, args, self.budget).map(Value::text);
            }
            (_, _, Value::Undefined(what)) => return Err(failed(&**what)),
            (BinaryOp::Add, Value::Str(a), Value::Str(b)) => {
                self.budget.bytes(a.len() + b.len())?;
                let (a, b) = match a.safe || b.safe {
                    true => (Rc::new(a.escaped()), Rc::new(b.escaped())),
                    false => (a.clone(), b.clone()),
                };
                let mut text = (*a).clone();
                text.push_text(&b);
                return Ok(Value::text(text));
            }
            (BinaryOp::Add, Value::List(a), Value::List(b)) if a.kind == b.kind => {
                self.budget
                    .spend((a.items.len() + b.items.len()) as u64 / 8)?;
                return same_kind(a, a.items.iter().chain(&b.items).cloned().collect());
            }
            (BinaryOp::Mul, Value::Str(text), count) | (BinaryOp::Mul, count, Value::Str(text)) => {
                if let Some(count) = count.as_int() {
                    let count = usize::try_from(count).unwrap_or(0);
                    self.budget.bytes(text.len().saturating_mul(count))?;
                    let mut repeated = Text::default();
                    (0..count).for_each(|_| repeated.push_text(text));
                    return Ok(Value::text(repeated));
                }
            }
            (BinaryOp::Mul, Value::List(list), count)
            | (BinaryOp::Mul, count, Value::List(list)) => {
                if let Some(count) = count.as_int() {
                    let count = usize::try_from(count).unwrap_or(0);
                    self.budget
                        .spend((list.items.len().saturating_mul(count)) as u64)?;
                    let items = (0..count).flat_map(|_| list.items.iter().cloned());
                    return same_kind(list, items.collect());
                }
            }
            _ => {}
        }
        format::arithmetic(op, left, right)
    }
}

fn same_kind(list: &List, items: Vec<Value>) -> Result<Value> {
    match list.kind {
        ListKind::Tuple => Value::tuple(items),
        _ => Value::list(items),
    }
}

fn missing(object: &Value, name: &str) -> Value {
    Value::undefined(format!(
        "'{}' object has no attribute '{name}'",
        object.type_name()
    ))
}

/// The indices that Python's `start:stop:step` visits; none where the step is 0.
fn slice_indices(len: usize, [start, stop, step]: [Option<i64>; 3]) -> Option<Vec<usize>> {
    let len = len as i64;
    let step = step.unwrap_or(1);
    if step == 0 {
        return None;
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |bound: Option<i64>, default| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(len).clamp(low, high),
        Some(bound) => bound.clamp(low, high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, stop) = (bound(start, first), bound(stop, last));
    let mut indices = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        indices.push(at as usize);
        at = at.saturating_add(step);
    }
    Some(indices)
}
