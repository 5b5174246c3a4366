//! The phases of an answer: thoughts, free text up to a marker, and what a grammar says.
//!
//! Grammars take whole tokens. So the tokens that would go on behind the end of the thoughts, or behind the marker, are
//! not allowed there: a grammar always begins with a token of its own.

use std::sync::Arc;

use toktrie::SimpleVob;

use super::environment::Environment;
use super::marker::{Marker, MarkerScan};
use super::{Grammar, GrammarError, Grammars};
use crate::engine::{Constraint, ConstraintError};
use crate::tokenizer::Tokenizer;

/// What stands around the thoughts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// Before them.
    pub open: &'static str,
    /// Behind them.
    pub close: &'static str,
    /// A word that may stand between what opens them and the first one, and is none of them.
    pub label: &'static str,
}

/// Where in an answer the thoughts are.
#[derive(Debug, Clone)]
pub struct ThinkingScan {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// The answer may begin with thoughts.
    Before(MarkerScan, Tags),
    /// They go on until this comes up.
    Inside(MarkerScan),
}

/// What a byte is at the beginning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// Perhaps of what opens thoughts.
    Undecided,
    /// The last one of what opens them.
    Opens,
    /// Of a thought, or perhaps of what closes them.
    Thought,
    /// The last one of what closes them: nothing after it is a thought.
    Closes,
    /// Of the answer, as all undecided ones before it were: there are no thoughts.
    Answer,
}

impl ThinkingScan {
    /// A search at the beginning of an answer, in which the thoughts may have begun already.
    pub fn new(tags: Tags, are_open: bool) -> ThinkingScan {
        ThinkingScan {
            state: match are_open {
                true => State::Inside(Marker::anywhere(tags.close).scan()),
                false => State::Before(Marker::at_start(tags.open).scan(), tags),
            },
        }
    }

    /// Takes the next byte, until one closes the thoughts or is of the answer.
    pub fn push(&mut self, byte: u8) -> Thinking {
        match &mut self.state {
            State::Before(scan, tags) => {
                if scan.push(byte) {
                    self.state = State::Inside(Marker::anywhere(tags.close).scan());
                    return Thinking::Opens;
                }
                match scan.can_be() {
                    true => Thinking::Undecided,
                    false => Thinking::Answer,
                }
            }
            State::Inside(scan) => match scan.push(byte) {
                true => Thinking::Closes,
                false => Thinking::Thought,
            },
        }
    }

    /// Whether the thoughts have begun.
    pub fn is_inside(&self) -> bool {
        matches!(self.state, State::Inside(_))
    }

    /// How many of the last bytes may be of what closes the thoughts.
    pub fn held(&self) -> usize {
        match &self.state {
            State::Before(..) => 0,
            State::Inside(scan) => scan.matched(),
        }
    }
}

/// What an answer is behind its thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// All of it is in the grammar.
    Strict,
    /// Free until this comes up, and then in the grammar.
    From(&'a Marker),
}

/// A constraint of an answer in phases.
#[derive(Debug)]
pub struct Phases {
    environment: Arc<Environment>,
    tokenizer: Tokenizer,
    /// Control tokens that have a text.
    shown: Arc<[u32]>,
    thinking: Option<Thoughts>,
    /// Free text, as long as no grammar has begun.
    free: Option<FreeText>,
    grammar: Grammar,
}

#[derive(Debug, Clone)]
struct Thoughts {
    scan: ThinkingScan,
    are_open: bool,
    /// The token that opens them.
    open_token: Option<u32>,
    /// Tokens that go on behind what closes them.
    beyond: Arc<[u32]>,
    /// Bytes that may be of what opens them, or of the answer.
    undecided: Vec<u8>,
}

#[derive(Debug, Clone)]
struct FreeText {
    scan: MarkerScan,
    /// Tokens that go on behind the marker.
    beyond: Arc<[u32]>,
}

impl Phases {
    /// A constraint by `grammars`: thoughts between `thinking`, which may have begun, and then `body` by `grammar`. The
    /// control tokens `shown` have a text.
    ///
    /// # Errors
    /// The vocabulary cannot be searched.
    pub fn new(
        grammars: &Grammars,
        shown: &[u32],
        thinking: Option<(Tags, bool)>,
        body: Body<'_>,
        grammar: Grammar,
    ) -> Result<Phases, GrammarError> {
        let environment = grammars.environment()?;
        let tokenizer = grammars.tokenizer();
        let thinking = thinking.map(|(tags, are_open)| Thoughts {
            scan: ThinkingScan::new(tags, are_open),
            are_open,
            open_token: match &tokenizer.markup_in(tags.open)[..] {
                [(_, Some(token))] => Some(*token),
                _ => None,
            },
            beyond: environment.beyond(&Marker::anywhere(tags.close)).into(),
            undecided: Vec::new(),
        });
        let free = match body {
            Body::Strict => None,
            Body::From(marker) => Some(FreeText {
                scan: marker.scan(),
                beyond: environment.beyond(marker).into(),
            }),
        };
        Ok(Phases {
            environment: environment.clone(),
            tokenizer: tokenizer.clone(),
            shown: shown.into(),
            thinking,
            free,
            grammar,
        })
    }

    fn text(&self, token: u32) -> Vec<u8> {
        match self.shown.contains(&token) {
            true => self.tokenizer.token_bytes(token),
            false => self.environment.text(token).to_vec(),
        }
    }

    /// All tokens but those that go on behind what `scan` looks for.
    fn up_to(&self, scan: &MarkerScan, beyond: &[u32], may_end: bool) -> Option<SimpleVob> {
        let rests = scan.rests();
        if may_end && rests.is_empty() && beyond.is_empty() {
            return None;
        }
        let mut mask = self.environment.all(may_end);
        for &token in beyond {
            mask.disallow_token(token);
        }
        for rest in rests {
            self.environment
                .longer_than(rest, |token| mask.disallow_token(token));
        }
        Some(mask)
    }

    /// Takes the next byte of what is in no grammar.
    fn take_byte(&mut self, byte: u8) -> Result<(), ConstraintError> {
        let Some(thoughts) = &mut self.thinking else {
            return self.take_free(byte);
        };
        match thoughts.scan.push(byte) {
            Thinking::Undecided => thoughts.undecided.push(byte),
            Thinking::Opens => thoughts.are_open = true,
            Thinking::Thought => {}
            Thinking::Closes => self.thinking = None,
            Thinking::Answer => {
                let undecided = std::mem::take(&mut thoughts.undecided);
                self.thinking = None;
                for byte in undecided.into_iter().chain([byte]) {
                    self.take_free(byte)?;
                }
            }
        }
        Ok(())
    }

    fn take_free(&mut self, byte: u8) -> Result<(), ConstraintError> {
        match &mut self.free {
            Some(free) => {
                if free.scan.push(byte) {
                    self.free = None;
                }
                Ok(())
            }
            None => Err(ConstraintError(
                "a token goes on where a grammar begins".to_owned(),
            )),
        }
    }
}

impl Constraint for Phases {
    fn mask(&mut self) -> Result<Option<Vec<u32>>, ConstraintError> {
        let words = |mask: SimpleVob| mask.as_slice().to_vec();
        match (&self.thinking, &self.free) {
            (Some(thoughts), free) if thoughts.are_open => {
                let State::Inside(scan) = &thoughts.scan.state else {
                    return Ok(None);
                };
                // An answer that must be something is not over with its thoughts.
                let mask = self.up_to(scan, &thoughts.beyond, free.is_some());
                Ok(mask.map(words))
            }
            (Some(thoughts), None) => {
                let open_token = thoughts.open_token;
                let mut mask = self.grammar.mask()?;
                if let (Some(mask), Some(token)) = (&mut mask, open_token)
                    && let Some(word) = mask.get_mut(token as usize / 32)
                {
                    *word |= 1 << (token % 32);
                }
                Ok(mask)
            }
            (thinking, Some(free)) => {
                let mut scan = free.scan.clone();
                let undecided = thinking.as_ref().map(|thoughts| &thoughts.undecided[..]);
                undecided.unwrap_or_default().iter().for_each(|&byte| {
                    scan.push(byte);
                });
                Ok(self.up_to(&scan, &free.beyond, true).map(words))
            }
            (None, None) => self.grammar.mask(),
        }
    }

    fn take(&mut self, token: u32) -> Result<(), ConstraintError> {
        if self.free.is_none()
            && let Some(thoughts) = &self.thinking
            && !thoughts.are_open
            && thoughts.open_token != Some(token)
        {
            self.thinking = None;
        }
        if self.free.is_none() && self.thinking.is_none() {
            return self.grammar.take(token);
        }
        let text = match &self.thinking {
            // It may be a control token that is not shown.
            Some(thoughts) if !thoughts.are_open && thoughts.open_token == Some(token) => {
                self.tokenizer.token_bytes(token)
            }
            _ => self.text(token),
        };
        text.into_iter().try_for_each(|byte| self.take_byte(byte))
    }

    fn is_complete(&self) -> bool {
        self.free.is_none() && self.thinking.is_none() && self.grammar.is_complete()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Phases {
            environment: self.environment.clone(),
            tokenizer: self.tokenizer.clone(),
            shown: self.shown.clone(),
            thinking: self.thinking.clone(),
            free: self.free.clone(),
            grammar: self.grammar.copy(),
        })
    }
}
