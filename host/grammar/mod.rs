//! Grammars that answers keep to: JSON schemas, and Lark grammars of tool calls, as masks over the vocabulary.
//!
//! Grammars are compiled by the thread that asks, before the request goes to the engine. What a client writes decides
//! how much work that is, so that its size is bounded here ([`schema`]) and the rest by the library's limits.

mod environment;
pub mod lark;
mod marker;
mod matcher;
mod phases;
pub mod schema;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;

use crate::tokenizer::Tokenizer;
use environment::Environment;
pub use marker::{Marker, MarkerScan};
pub use matcher::Grammar;
pub use phases::{Body, Phases, Tags, Thinking, ThinkingScan};

/// Why there is no grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It says something that cannot be kept to token by token, or too much.
    #[error("{0}")]
    Refused(String),
    /// The model's vocabulary cannot be searched.
    #[error("the vocabulary of the model is not usable for grammars: {0}")]
    Vocabulary(String),
}

/// A thread that compiles has as much stack: schemas are nested.
const STACK: usize = 16 << 20;

/// Compiled grammars that are kept: an agent sends the same tools with every turn.
const MAX_KEPT: usize = 16;

/// The longest message of the library that is passed on; it quotes grammars.
const MAX_MESSAGE: usize = 300;

/// The grammars of one model. What they share is made when the first one is asked for.
pub struct Grammars {
    tokenizer: Tokenizer,
    shared: OnceLock<Result<Shared, GrammarError>>,
    /// The last ones, the newest first, with their texts.
    kept: Mutex<VecDeque<(String, Grammar)>>,
}

struct Shared {
    environment: Arc<Environment>,
    factory: ParserFactory,
}

impl Grammars {
    /// Grammars over the vocabulary of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Grammars {
        Grammars {
            tokenizer: tokenizer.clone(),
            shared: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Makes what all grammars share, so that no request has to wait for it.
    ///
    /// # Errors
    /// The vocabulary cannot be searched.
    pub fn warm_up(&self) -> Result<(), GrammarError> {
        self.shared().map(drop)
    }

    /// Compiles a grammar in llguidance's dialect of Lark.
    ///
    /// # Errors
    /// It cannot be kept to, or is too large.
    pub fn compile(&self, lark: String) -> Result<Grammar, GrammarError> {
        if let Some(grammar) = self.find_kept(&lark) {
            return Ok(grammar);
        }
        let shared = self.shared()?;
        let parser = on_large_stack(|| {
            let grammar = TopLevelGrammar::from_lark(lark.clone());
            let parser = shared.factory.create_parser(grammar);
            parser.map_err(|error| GrammarError::Refused(first_line(&error.to_string())))
        })?;
        let grammar = Grammar::new(parser)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((lark, grammar.copy()));
        kept.truncate(MAX_KEPT);
        Ok(grammar)
    }

    fn find_kept(&self, lark: &str) -> Option<Grammar> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(text, _)| text == lark)?;
        let found = kept.remove(at)?;
        let grammar = found.1.copy();
        kept.push_front(found);
        Some(grammar)
    }

    /// What the bytes of tokens are looked up in.
    fn environment(&self) -> Result<&Arc<Environment>, GrammarError> {
        Ok(&self.shared()?.environment)
    }

    fn shared(&self) -> Result<&Shared, GrammarError> {
        let shared = self.shared.get_or_init(|| {
            let environment = Arc::new(Environment::new(&self.tokenizer)?);
            let vocabulary = |error: anyhow::Error| GrammarError::Vocabulary(error.to_string());
            let env: toktrie::TokEnv = environment.clone();
            let mut factory = ParserFactory::new_simple(&env).map_err(vocabulary)?;
            factory.quiet();
            let limits = factory.limits_mut();
            // Half of the library's own: a quarter of a second at most, on one core.
            limits.initial_lexer_fuel = 500_000;
            limits.max_grammar_size = 200_000;
            limits.max_lexer_states = 50_000;
            limits.verbose_errors = false;
            Ok(Shared {
                environment,
                factory,
            })
        });
        shared.as_ref().map_err(GrammarError::clone)
    }
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// What the library says in one line, without the grammar that it quotes.
fn first_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let told = lines.filter(|line| !line.is_empty() && !line.starts_with('<'));
    let mut line: String = told.take(1).collect();
    // "at 3(7): " is a place in a text that the client has never seen.
    if line.starts_with("at ")
        && let Some((_, rest)) = line.split_once("): ")
    {
        line = rest.to_owned();
    }
    in_our_words(&line).chars().take(MAX_MESSAGE).collect()
}

/// What the library says of a schema, without what only its own callers can do about it.
fn in_our_words(line: &str) -> String {
    let line = line
        .strip_prefix("failed to compile JSON schema: ")
        .unwrap_or(line);
    let keys = line.strip_prefix("Unimplemented keys: ");
    if let Some(keys) = keys.and_then(|keys| serde_json::from_str::<Vec<String>>(keys).ok()) {
        return format!("not supported: {}", keys.join(", "));
    }
    let line = line.split(". Enable ").next().unwrap_or(line);
    line.replace(" without 'referencing' feature", "")
}

fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, GrammarError> + Send,
) -> Result<T, GrammarError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| GrammarError::Refused(format!("no thread for it: {error}")))?;
        let failed = |_| {
            Err(GrammarError::Refused(
                "the compiler of grammars failed".into(),
            ))
        };
        thread.join().unwrap_or_else(failed)
    })
}
