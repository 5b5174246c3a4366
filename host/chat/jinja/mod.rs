//! An interpreter of Jinja templates that knows, for every character it writes, who wrote it.
//!
//! Two things ask for an interpreter of our own. A chat template may do anything with a message:
//! strip, slice, replace, join, encode as JSON. Whether a character of the result may be markup
//! depends on where it came from, which no marks inside of the text can tell: marks are stripped,
//! compared, counted and printed like all other characters, and a message may hold them. So a
//! [`Text`](text::Text) carries its sources beside the characters, through every operation. And
//! templates are written for Python: jinja2's and Python's rules (what is true, iterable, equal,
//! printed) hold here to the letter, as far as known templates go.
//!
//! Templates come with untrusted files. Work and memory are charged to a [`Budget`](error::Budget),
//! depth is bounded everywhere, and nothing outside of the template can be reached.

mod arguments;
mod ast;
mod error;
mod evaluate;
mod expressions;
mod filters;
mod format;
mod functions;
mod interpreter;
mod json;
mod lexer;
mod methods;
mod parser;
mod predicates;
mod print;
mod sequences;
mod splitting;
mod text;
mod value;

pub use error::{Budget, Kind, Result};
pub use text::{Source, Text, is_space};
pub use value::Value;

/// Rendering recurses by the template's nesting; this is far more than its bounds allow.
const STACK: usize = 64 << 20;

/// A parsed template.
#[derive(Debug)]
pub struct Program {
    template: ast::Template,
}

impl Program {
    /// Parses `source`.
    ///
    /// # Errors
    /// It is not Jinja, or loads other templates.
    pub fn parse(source: &str) -> Result<Program> {
        // The parser's depth is bounded, but a test's thread has little stack.
        let template = on_large_stack(|| parser::parse(source))?;
        Ok(Program { template })
    }

    /// Everything that the template spells as text: what it writes, and its strings.
    pub fn literals(&self) -> Vec<&str> {
        let mut found = Vec::new();
        data(&self.template.body, &mut found);
        for expr in &self.template.exprs {
            if let ast::Expr::Const(ast::Const::Str(text)) = expr {
                found.push(text);
            }
        }
        found
    }

    /// Renders with the variables that `globals` gives, for at most `fuel`.
    ///
    /// # Errors
    /// The template fails, refuses, or spends too much.
    pub fn render(
        &self,
        globals: impl FnOnce(&Budget) -> Result<Vec<(String, Value)>> + Send,
        fuel: u64,
    ) -> Result<Text> {
        on_large_stack(|| {
            let budget = Budget::new(fuel);
            let globals = globals(&budget)?;
            let globals = globals
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone()));
            interpreter::Interpreter::new(&self.template, globals.collect(), &budget).render()
        })
    }
}

fn data<'t>(body: &'t [ast::Stmt], found: &mut Vec<&'t str>) {
    use ast::Stmt;
    for stmt in body {
        match stmt {
            Stmt::Data(text) => found.push(text),
            Stmt::If(branches) => branches.iter().for_each(|(_, body)| data(body, found)),
            Stmt::For(definition) => {
                data(&definition.body, found);
                data(&definition.otherwise, found);
            }
            Stmt::Macro(definition) | Stmt::Call(_, definition) => data(&definition.body, found),
            Stmt::SetBlock(_, _, body)
            | Stmt::Filter(_, body)
            | Stmt::With(_, body)
            | Stmt::Scope(body) => data(body, found),
            Stmt::Output(_) | Stmt::Set(..) | Stmt::Break | Stmt::Continue => {}
        }
    }
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(error::failed(format!(
                "no thread for the template: {error}"
            ))),
        }
    })
}
