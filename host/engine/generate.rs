//! Text from a prompt: prefill, then decode, sample and detokenize until something ends it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Decode, Engine, EngineError, Sequence};
use crate::backend::{Output, Want};
use crate::sampling::{Sampler, StopStrings};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its text or its turn.
    EndOfText,
    /// A stop string came up.
    StopString,
    /// The token limit.
    Length,
    /// The context is full.
    Context,
    /// The user stopped it, or nobody reads the text any more.
    Interrupted,
}

/// What a generation took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Prompt tokens that were computed.
    pub prompt_tokens: usize,
    /// Prompt tokens that were in the KV cache already.
    pub cached_tokens: usize,
    /// Time for the computed prompt tokens.
    pub prefill: Duration,
    /// Tokens generated, the one that ended the text included.
    pub generated_tokens: usize,
    /// Time from the first generated token to the last.
    pub decode: Duration,
    /// Time from the start to the first generated token.
    pub first_token: Duration,
}

impl Stats {
    /// Prompt tokens per second, 0 where none was computed.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// Generated tokens per second; the first one belongs to the prefill.
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}

/// A finished generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The text, without what ended it.
    pub text: String,
    /// The generated tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub stats: Stats,
}

/// What a generation may not exceed.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Most tokens; `None` until the model or the context ends it.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of its text.
    pub stop: Vec<String>,
    /// Goes on past end-of-text tokens.
    pub ignore_end: bool,
}

/// Everything that a generation needs besides the sequence.
pub struct Generator<'a> {
    /// The engine.
    pub engine: &'a mut Engine,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Chooses tokens.
    pub sampler: &'a mut Sampler,
    /// When to end.
    pub limits: &'a Limits,
    /// Set by a signal handler to end early.
    pub interrupt: &'a AtomicBool,
}

impl Generator<'_> {
    /// Makes `sequence` hold `prompt` (keeping what it has of it already) and generates. `emit` takes
    /// the text piece by piece, in whole characters; its error ends the generation.
    pub fn run(
        &mut self,
        sequence: &mut Sequence,
        prompt: &[u32],
        emit: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Generation, EngineError> {
        let started = Instant::now();
        let mut stats = Stats {
            cached_tokens: sequence.keep_prefix_of(prompt),
            ..Stats::default()
        };
        for &token in prompt {
            self.sampler.accept(token);
        }
        let mut text = TextOut::new(self.tokenizer, &self.limits.stop, emit);
        let mut tokens = Vec::new();
        let writes_nothing = self.limits.max_tokens == Some(0);
        let want = match writes_nothing {
            true => Want::Nothing,
            false => self.want(),
        };
        let new = &prompt[stats.cached_tokens..];
        let output = self.engine.prefill(sequence, new, want, self.interrupt);
        stats.prompt_tokens = sequence.len() - stats.cached_tokens;
        stats.prefill = started.elapsed();
        let mut output = match output {
            Err(EngineError::Interrupted) => {
                return Ok(Generation {
                    text: String::new(),
                    tokens,
                    finish: Finish::Interrupted,
                    stats,
                });
            }
            output => output?,
        };
        if writes_nothing {
            return Ok(Generation {
                text: String::new(),
                tokens,
                finish: Finish::Length,
                stats,
            });
        }
        let finish = loop {
            let token = self.choose(&output)?;
            tokens.push(token);
            if tokens.len() == 1 {
                stats.first_token = started.elapsed();
            }
            if !self.limits.ignore_end && self.tokenizer.is_end_of_generation(token) {
                break Finish::EndOfText;
            }
            self.sampler.accept(token);
            if let Some(finish) = text.push(token) {
                break finish;
            }
            if self.interrupt.load(Ordering::Relaxed) {
                break Finish::Interrupted;
            }
            if self
                .limits
                .max_tokens
                .is_some_and(|max| tokens.len() >= max)
            {
                break Finish::Length;
            }
            let item = Decode {
                sequence,
                token,
                want: self.want(),
            };
            let stepped = self.engine.decode(&mut [item]);
            output = match stepped.and_then(|mut outputs| outputs.remove(0)) {
                Err(EngineError::Context { .. }) => break Finish::Context,
                Err(EngineError::Interrupted) => break Finish::Interrupted,
                output => output?,
            };
        };
        stats.generated_tokens = tokens.len();
        stats.decode = started.elapsed().saturating_sub(stats.first_token);
        Ok(Generation {
            text: text.finish(finish),
            tokens,
            finish,
            stats,
        })
    }

    /// What the next step has to give: a token, so that not all logits need to leave the device, where
    /// the backend can choose as the sampler would.
    fn want(&mut self) -> Want {
        if self.sampler.is_argmax() {
            return Want::Argmax;
        }
        let draw = match self.engine.backend().draws() {
            true => self.sampler.draw_elsewhere(),
            false => None,
        };
        draw.map_or(Want::LastLogits, Want::Draw)
    }

    fn choose(&mut self, output: &Output) -> Result<u32, EngineError> {
        match output {
            Output::Token(token) => Ok(*token),
            Output::Logits(logits) => self
                .sampler
                .sample(logits)
                .map_err(|e| EngineError::Text(e.into())),
            Output::Nothing => Err(EngineError::EmptyPrompt),
            Output::NotFinite(error) => Err((*error).into()),
        }
    }
}

/// Tokens to text: whole characters, held back while they may be the start of a stop string.
struct TextOut<'a> {
    decoder: StreamDecoder,
    stops: StopStrings,
    text: String,
    emit: &'a mut dyn FnMut(&str) -> io::Result<()>,
}

impl<'a> TextOut<'a> {
    fn new(
        tokenizer: &Tokenizer,
        stop: &[String],
        emit: &'a mut dyn FnMut(&str) -> io::Result<()>,
    ) -> TextOut<'a> {
        let decoder = tokenizer.stream();
        TextOut {
            decoder,
            stops: StopStrings::new(stop),
            text: String::new(),
            emit,
        }
    }

    /// Takes a token; says so when the text ends here.
    fn push(&mut self, token: u32) -> Option<Finish> {
        let piece = self.decoder.push(token);
        let matched = self.stops.push(&piece);
        let written = self.write(&matched.text);
        if matched.stopped {
            return Some(Finish::StopString);
        }
        written.err().map(|_| Finish::Interrupted)
    }

    /// Writes what was held back and gives the whole text.
    fn finish(mut self, finish: Finish) -> String {
        if finish != Finish::StopString {
            let rest = self.decoder.finish();
            let mut held = self.stops.push(&rest).text;
            held.push_str(&self.stops.finish());
            // Nobody is left to tell when the last write fails.
            let _ = self.write(&held);
        }
        self.text
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.text.push_str(text);
        (self.emit)(text)
    }
}
