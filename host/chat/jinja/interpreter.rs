//! Runs a parsed template: statements and scopes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{ExprId, For, Macro, Stmt, Target, Template};
use super::error::{Budget, Result, failed};
use super::print::to_text;
use super::text::{Source, Text};
use super::value::{Loop, Value};

/// Statements, expressions and calls within one another; the rendering's own stack has room for it.
const MAX_DEPTH: usize = 4_000;

/// Macros that are being called; Python gives up at about as many.
const MAX_CALLS: usize = 200;

/// How a list of statements ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

#[derive(Debug, Default)]
struct Scope<'t> {
    names: HashMap<&'t str, Value>,
    parent: Option<usize>,
}

/// A macro with the scope in which it was defined.
#[derive(Clone, Copy, Debug)]
struct Closure<'t> {
    definition: &'t Macro,
    scope: usize,
}

/// The arguments of a call, evaluated.
#[derive(Debug, Default)]
pub struct CallArgs {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
    /// Some names came from a dict (`**`) that the template did not write.
    pub foreign_names: bool,
}

impl CallArgs {
    /// A name of `named` as a value.
    pub fn name_value(&self, name: &str) -> Value {
        let source = match self.foreign_names {
            true => Source::Foreign,
            false => Source::Template,
        };
        Value::text(Text::new(name, source))
    }
}

/// One rendering.
pub struct Interpreter<'t> {
    pub(super) template: &'t Template,
    pub(super) budget: &'t Budget,
    scopes: Vec<Scope<'t>>,
    scope: usize,
    macros: Vec<Closure<'t>>,
    recursive_loops: Vec<(&'t For, usize)>,
    pub(super) namespaces: Vec<Vec<(String, Value)>>,
    depth: usize,
    calls: usize,
    out: Text,
}

impl<'t> Interpreter<'t> {
    /// A rendering of `template` that sees `globals`.
    pub fn new(
        template: &'t Template,
        globals: Vec<(&'t str, Value)>,
        budget: &'t Budget,
    ) -> Interpreter<'t> {
        let names = globals.into_iter().collect();
        let globals = Scope {
            names,
            parent: None,
        };
        let root = Scope {
            names: HashMap::new(),
            parent: Some(0),
        };
        Interpreter {
            template,
            budget,
            scopes: vec![globals, root],
            scope: 1,
            macros: Vec::new(),
            recursive_loops: Vec::new(),
            namespaces: Vec::new(),
            depth: 0,
            calls: 0,
            out: Text::default(),
        }
    }

    /// The rendered text.
    pub fn render(mut self) -> Result<Text> {
        self.run(&self.template.body)?;
        Ok(self.out)
    }

    pub(super) fn descend(&mut self) -> Result<()> {
        self.budget.spend(1)?;
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err(failed("maximum recursion depth exceeded")),
            false => Ok(()),
        }
    }

    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn lookup(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self.scope);
        while let Some(index) = scope {
            if let Some(value) = self.scopes[index].names.get(name) {
                return Some(value.clone());
            }
            scope = self.scopes[index].parent;
        }
        None
    }

    fn define(&mut self, name: &'t str, value: Value) {
        self.scopes[self.scope].names.insert(name, value);
    }

    /// Runs `body` in a new scope inside of `parent`.
    fn scoped<T>(
        &mut self,
        parent: usize,
        body: impl FnOnce(&mut Interpreter<'t>) -> Result<T>,
    ) -> Result<T> {
        self.scopes.push(Scope {
            names: HashMap::new(),
            parent: Some(parent),
        });
        let index = self.scopes.len() - 1;
        let outer = std::mem::replace(&mut self.scope, index);
        let captures = self.macros.len() + self.recursive_loops.len();
        let done = body(self);
        self.scope = outer;
        // Nothing refers to a scope afterwards, unless something was defined in it.
        if captures == self.macros.len() + self.recursive_loops.len() {
            self.scopes.truncate(index);
        }
        done
    }

    /// What `body` writes in a new scope, instead of writing it.
    fn capture(&mut self, parent: usize, body: &'t [Stmt]) -> Result<Text> {
        let outer = std::mem::take(&mut self.out);
        let done = self.scoped(parent, |this| this.run(body));
        let written = std::mem::replace(&mut self.out, outer);
        done.map(|_| written)
    }

    fn run(&mut self, body: &'t [Stmt]) -> Result<Flow> {
        self.descend()?;
        for stmt in body {
            let flow = self.statement(stmt)?;
            if flow != Flow::Next {
                self.ascend();
                return Ok(flow);
            }
        }
        self.ascend();
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &'t Stmt) -> Result<Flow> {
        match stmt {
            Stmt::Data(text) => {
                self.budget.bytes(text.len())?;
                self.out.push_str(text, Source::Template);
            }
            Stmt::Output(expr) => {
                let value = self.eval(*expr)?;
                let text = to_text(&value, self.budget)?;
                self.budget.bytes(text.len())?;
                self.out.push_text(&text);
            }
            Stmt::If(branches) => {
                for (condition, body) in branches {
                    let taken = match condition {
                        Some(condition) => self.eval(*condition)?.is_true(),
                        None => true,
                    };
                    if taken {
                        return self.run(body);
                    }
                }
            }
            Stmt::For(definition) => {
                let items = self.eval(definition.iter)?;
                let scope = self.scope;
                self.for_loop(definition, &items, scope, 1, None)?;
            }
            Stmt::Set(target, expr) => {
                let value = self.eval(*expr)?;
                self.assign(target, value)?;
            }
            Stmt::SetBlock(target, filter, body) => {
                let text = Value::text(self.capture(self.scope, body)?);
                let value = self.filtered(*filter, text)?;
                self.assign(target, value)?;
            }
            Stmt::Macro(definition) => {
                let closure = self.close_over(definition);
                self.define(&definition.name, closure);
            }
            Stmt::Call(call, caller) => {
                let caller = self.close_over(caller);
                let value = self.eval_call(*call, Some(caller))?;
                let text = to_text(&value, self.budget)?;
                self.out.push_text(&text);
            }
            Stmt::Filter(filter, body) => {
                let text = Value::text(self.capture(self.scope, body)?);
                let value = self.filtered(Some(*filter), text)?;
                let text = to_text(&value, self.budget)?;
                self.out.push_text(&text);
            }
            Stmt::With(values, body) => {
                let evaluated: Result<Vec<Value>> =
                    values.iter().map(|(_, expr)| self.eval(*expr)).collect();
                let evaluated = evaluated?;
                return self.scoped(self.scope, |this| {
                    for ((target, _), value) in values.iter().zip(evaluated) {
                        this.assign(target, value)?;
                    }
                    this.run(body)
                });
            }
            Stmt::Scope(body) => return self.scoped(self.scope, |this| this.run(body)),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn filtered(&mut self, filter: Option<ExprId>, text: Value) -> Result<Value> {
        match filter {
            Some(filter) => self.eval_filter(filter, Some(text)),
            None => Ok(text),
        }
    }

    fn close_over(&mut self, definition: &'t Macro) -> Value {
        self.macros.push(Closure {
            definition,
            scope: self.scope,
        });
        Value::Macro(self.macros.len() - 1)
    }

    fn assign(&mut self, target: &'t Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.define(name, value),
            Target::Attribute(name, attribute) => match self.lookup(name) {
                Some(Value::Namespace(index)) => {
                    let fields = &mut self.namespaces[index];
                    match fields.iter_mut().find(|(name, _)| name == attribute) {
                        Some((_, field)) => *field = value,
                        None => fields.push((attribute.clone(), value)),
                    }
                }
                _ => return Err(failed(format!("'{name}' is not a namespace"))),
            },
            Target::Tuple(targets) => {
                let items = value.elements(self.budget)?;
                if items.len() != targets.len() {
                    return Err(failed(format!(
                        "{} values for {} names",
                        items.len(),
                        targets.len()
                    )));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
            }
        }
        Ok(())
    }

    /// `recursive` is the place of the definition in `recursive_loops`, where the loop called itself.
    fn for_loop(
        &mut self,
        definition: &'t For,
        iterable: &Value,
        parent: usize,
        depth: usize,
        recursive: Option<usize>,
    ) -> Result<()> {
        let mut items = iterable.elements(self.budget)?;
        self.scoped(parent, |this| {
            if let Some(test) = definition.test {
                let mut kept = Vec::new();
                for item in items {
                    this.assign(&definition.target, item.clone())?;
                    if this.eval(test)?.is_true() {
                        kept.push(item);
                    }
                }
                items = kept;
            }
            if items.is_empty() {
                this.scopes[this.scope].names.clear();
                return this.run(&definition.otherwise).map(|_| ());
            }
            let recursive = recursive.or_else(|| {
                definition.recursive.then(|| {
                    this.recursive_loops.push((definition, parent));
                    this.recursive_loops.len() - 1
                })
            });
            let state = Rc::new(Loop {
                items,
                index: Cell::new(0),
                depth,
                changed: RefCell::new(None),
                recursive,
            });
            for index in 0..state.items.len() {
                this.scopes[this.scope].names.clear();
                state.index.set(index);
                this.define("loop", Value::Loop(state.clone()));
                this.assign(&definition.target, state.items[index].clone())?;
                if this.run(&definition.body)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        })
    }

    /// `loop(items)` inside of a recursive loop.
    pub(super) fn call_loop(&mut self, state: &Loop, args: &CallArgs) -> Result<Value> {
        let (Some(recursive), [items]) = (state.recursive, args.positional.as_slice()) else {
            return Err(failed(
                "the loop is not recursive, or was not given one list",
            ));
        };
        let (definition, parent) = self.recursive_loops[recursive];
        self.enter_call()?;
        let outer = std::mem::take(&mut self.out);
        let done = self.for_loop(definition, items, parent, state.depth + 1, Some(recursive));
        let written = std::mem::replace(&mut self.out, outer);
        self.calls -= 1;
        done.map(|()| Value::text(written))
    }

    fn enter_call(&mut self) -> Result<()> {
        self.calls += 1;
        match self.calls > MAX_CALLS {
            true => Err(failed("maximum recursion depth exceeded")),
            false => Ok(()),
        }
    }

    pub(super) fn call_macro(&mut self, index: usize, args: CallArgs) -> Result<Value> {
        let Closure { definition, scope } = self.macros[index];
        self.enter_call()?;
        let outer = std::mem::take(&mut self.out);
        let done = self.scoped(scope, |this| {
            this.bind(definition, args)?;
            this.run(&definition.body)
        });
        let written = std::mem::replace(&mut self.out, outer);
        self.calls -= 1;
        done.map(|_| Value::text(written))
    }

    fn bind(&mut self, definition: &'t Macro, args: CallArgs) -> Result<()> {
        let Macro {
            name, signature, ..
        } = definition;
        let mut named = args.named;
        let names = CallArgs {
            foreign_names: args.foreign_names,
            ..CallArgs::default()
        };
        let mut positional = args.positional.into_iter();
        let caller = named.iter().position(|(name, _)| name == "caller");
        let caller = caller.map(|at| named.remove(at).1);
        let caller = caller.unwrap_or_else(|| Value::undefined("no caller defined"));
        self.define("caller", caller);
        for (param, default) in &signature.params {
            let by_name = named.iter().position(|(name, _)| name == param);
            let by_name = by_name.map(|at| named.remove(at).1);
            let value = match (positional.next(), by_name, default) {
                (Some(_), Some(_), _) => {
                    return Err(failed(format!("macro '{name}': '{param}' was given twice")));
                }
                (Some(value), None, _) | (None, Some(value), _) => value,
                (None, None, Some(default)) => self.eval(*default)?,
                (None, None, None) => {
                    Value::undefined(format!("parameter '{param}' was not provided"))
                }
            };
            self.define(param, value);
        }
        let rest: Vec<Value> = positional.collect();
        match signature.takes_rest {
            true => self.define("varargs", Value::tuple(rest)?),
            false if !rest.is_empty() => {
                return Err(failed(format!("macro '{name}' takes fewer arguments")));
            }
            false => {}
        }
        if signature.takes_named_rest {
            let entries = named.iter();
            let entries = entries.map(|(name, value)| (names.name_value(name), value.clone()));
            let kwargs = Value::dict(entries.collect(), self.budget)?;
            self.define("kwargs", kwargs);
        } else if let Some((unknown, _)) = named.first() {
            return Err(failed(format!(
                "macro '{name}' has no parameter '{unknown}'"
            )));
        }
        Ok(())
    }
}
