//! A request on its way through the scheduler.

use std::time::Instant;

use super::constrained::Constrained;
use super::embedding::Embedding;
use super::guess::Guess;
use super::speculation::Speculation;
use super::text::AnswerText;
use super::{
    ConstraintError, Finish, Generation, Limits, PagePool, Request, RequestId, Sequence, Stats,
};
use crate::backend::{
    Ask, Choice, Logprobs, NewTokens, Output, PAGE_TOKENS, Pooling, Report, Row, Ticket,
};
use crate::sampling::{Sampler, SamplingError};
use crate::tokenizer::Tokenizer;

/// Its tokens, how far they are computed, and its text.
pub struct Active {
    pub id: RequestId,
    /// The prompt, and what was generated behind it.
    tokens: Vec<u32>,
    n_prompt: usize,
    /// The tokens that are computed, and pages for those on their way.
    pub sequence: Sequence,
    /// Positions that were sent to the backend, computed or not.
    pub sent: usize,
    /// Rows under way.
    pub n_under_way: usize,
    /// Those of them that choose a token.
    n_choosing: usize,
    /// The newest of these.
    newest: Option<(Ticket, usize)>,
    sampler: Sampler,
    limits: Limits,
    logprobs: Option<usize>,
    token_logprobs: Vec<Logprobs>,
    embedding: Option<Embedding>,
    constrained: Constrained,
    speculation: Option<Speculation>,
    /// What the next row verifies, or the one under way.
    guess: Guess,
    text: AnswerText,
    pub is_cancelled: bool,
    arrived: Instant,
    stats: Stats,
}

/// What a token did to its answer.
pub struct Taken {
    /// The token.
    pub token: u32,
    /// The text that is certain with it.
    pub text: String,
    /// What is known of it, where that was asked for.
    pub logprobs: Option<Logprobs>,
    /// Whether it is the last one.
    pub finish: Option<Finish>,
}

impl Active {
    pub fn new(
        id: RequestId,
        request: Request,
        tokenizer: &Tokenizer,
        vocab: usize,
        speculation: Option<Speculation>,
    ) -> Result<Active, SamplingError> {
        let mut sampler = Sampler::new(request.sampling, vocab)?;
        request
            .prompt
            .iter()
            .for_each(|&token| sampler.accept(token));
        Ok(Active {
            id,
            n_prompt: request.prompt.len(),
            tokens: request.prompt,
            sequence: Sequence::new(),
            sent: 0,
            n_under_way: 0,
            n_choosing: 0,
            newest: None,
            sampler,
            text: AnswerText::new(tokenizer, &request.limits.stop, request.shown),
            limits: match request.embedding {
                Some(_) => Limits {
                    max_tokens: Some(0),
                    ..request.limits
                },
                None => request.limits,
            },
            logprobs: request.logprobs,
            token_logprobs: Vec::new(),
            embedding: request.embedding.map(Embedding::new),
            constrained: Constrained::new(request.constraint),
            speculation,
            guess: Guess::default(),
            is_cancelled: false,
            arrived: Instant::now(),
            stats: Stats::default(),
        })
    }

    /// All tokens that are known.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    fn n_generated(&self) -> usize {
        self.tokens.len() - self.n_prompt
    }

    /// How many tokens the prompt and the answer have at most, in a context of `context`.
    fn end(&self, context: usize) -> usize {
        let most = self.limits.max_tokens.unwrap_or(usize::MAX);
        self.n_prompt.saturating_add(most).min(context)
    }

    /// Prompt tokens, and how many of them are computed.
    pub fn prompt_progress(&self) -> (usize, usize) {
        (self.sequence.len().min(self.n_prompt), self.n_prompt)
    }

    /// What `pool` has of its tokens already. The mean over a prompt needs all of them computed.
    pub fn cached(&self, pool: &PagePool) -> Sequence {
        match &self.embedding {
            Some(embedding) if embedding.pooling == Pooling::Mean => Sequence::new(),
            _ => Sequence::with_prefix_of(&self.tokens, pool),
        }
    }

    /// Begins, or begins again, with what `sequence` holds of its tokens.
    pub fn start(&mut self, sequence: Sequence) {
        if self.n_generated() == 0 && self.stats.preemptions == 0 {
            self.stats.cached_tokens = sequence.len();
        }
        self.sent = sequence.len();
        self.sequence = sequence;
    }

    /// Gives its pages back, to be computed again later. Nothing of it is under way.
    pub fn preempt(&mut self) {
        debug_assert_eq!(self.n_under_way, 0);
        self.sequence = Sequence::new();
        self.sent = 0;
        self.guess = Guess::default();
        if let Some(embedding) = &mut self.embedding {
            *embedding = Embedding::new(embedding.pooling);
        }
        self.stats.preemptions += 1;
    }

    /// Known tokens that were not sent yet.
    pub fn n_waiting(&self) -> usize {
        self.tokens.len().saturating_sub(self.sent)
    }

    /// Whether its next row can be sent, in a context of `context`: there is a token that is known, or one that is
    /// on its way and that nothing but the model depends on.
    pub fn can_go(&mut self, context: usize) -> bool {
        if self.n_waiting() > 0 {
            return true;
        }
        let is_last = self.tokens.len() + self.n_choosing >= self.end(context);
        let depends = self.sampler.remembers() || self.constrained.is_any();
        let may_follow = self.n_choosing > 0 && self.guess.is_empty() && !depends && !is_last;
        let speculation = self.speculation.as_mut().filter(|_| may_follow);
        may_follow && !speculation.is_some_and(|speculation| speculation.waits(&self.tokens))
    }

    /// Guesses how its text goes on, in a context of `context`, where its newest token is known and its mask is too.
    pub fn find_drafts(&mut self, context: usize, vocab: usize, tokenizer: &Tokenizer) {
        let (n_generated, n_waiting) = (self.n_generated(), self.n_waiting());
        // One token is chosen behind the drafts.
        let room = self.end(context).saturating_sub(self.tokens.len() + 1);
        let Some(speculation) = &mut self.speculation else {
            return;
        };
        if self.n_under_way > 0 {
            return;
        }
        self.guess = Guess::default();
        let (1, 1.., Some(&newest)) = (n_waiting, n_generated, self.tokens.last()) else {
            return;
        };
        let mut drafts = speculation.draft(&self.tokens, room);
        let may_end = !self.limits.ignore_end || self.constrained.is_any();
        let is_end = |&token: &u32| may_end && tokenizer.is_end_of_generation(token);
        drafts.truncate(drafts.iter().position(is_end).unwrap_or(drafts.len()));
        if drafts.is_empty() {
            return;
        }
        self.guess = Guess::new(newest, &drafts, &self.sampler, &self.constrained, vocab);
    }

    /// Keeps at most `most` drafts, for which there are `spare` pages in `pool`: how many these are. They have pages.
    pub fn keep_drafts(&mut self, most: usize, spare: usize, pool: &PagePool) -> usize {
        let end = self.sent + 1;
        let mut n = self.guess.drafts().len().min(most);
        if self.sequence.missing_pages(end + n) > spare {
            n = n.min((self.sequence.page_ids().len() * PAGE_TOKENS).saturating_sub(end));
        }
        if !self.sequence.reserve(end + n, pool) {
            n = 0;
        }
        self.guess.truncate(n);
        n
    }

    /// Whether its constraint has to be asked before its next row.
    pub fn needs_mask(&self) -> bool {
        self.constrained.needs_mask() && self.n_waiting() > 0
    }

    /// Asks its constraint, in a vocabulary of `vocab` tokens.
    pub fn find_mask(&mut self, vocab: usize) -> Result<(), ConstraintError> {
        self.constrained.find_mask(vocab)
    }

    /// Its next row, of `n` tokens, drafts included.
    pub fn row(&self, n: usize) -> Row<'_> {
        let start = self.sent;
        let known = self.tokens.get(start..start + n).map(NewTokens::Known);
        let tokens = match (known, self.newest) {
            _ if !self.guess.is_empty() => NewTokens::Known(self.guess.tokens()),
            (Some(known), _) => known,
            (None, Some((ticket, row))) => NewTokens::ChosenBy(ticket, row),
            // `can_go` says which rows there are.
            (None, None) => NewTokens::Known(&[]),
        };
        let chooses = self.chooses(n);
        Row {
            tokens,
            start,
            pages: self.sequence.page_ids(),
            ask: Ask {
                choose: chooses.then(|| Choice {
                    mask: self.constrained.mask(),
                    drafts: self.guess.drafts(),
                    ..self.sampler.choice()
                }),
                report: match (self.logprobs, &self.embedding) {
                    (_, Some(embedding)) if embedding.wants(start + n == self.n_prompt) => {
                        Report::Hidden(embedding.pooling)
                    }
                    (Some(most), _) if chooses => Report::TopLogprobs(most),
                    _ => Report::Nothing,
                },
            },
        }
    }

    /// Whether its next row, of `n` tokens, reaches the end of what is known.
    fn chooses(&self, n: usize) -> bool {
        self.sent + n >= self.tokens.len() && self.limits.max_tokens != Some(0)
    }

    /// Notes that its next row, of `n` tokens, is row `row` of step `ticket`.
    pub fn was_sent(&mut self, n: usize, ticket: Ticket, row: usize) {
        if self.chooses(n) {
            self.n_choosing += 1;
            self.newest = Some((ticket, row));
        }
        self.sent += n;
        self.n_under_way += 1;
    }

    /// Notes that a row of `n` tokens is complete: what its tokens did, up to the one that ends the answer.
    ///
    /// # Errors
    /// The constraint refuses a token.
    pub fn complete(
        &mut self,
        n: usize,
        output: &Output,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<Vec<Taken>, ConstraintError> {
        self.n_under_way -= 1;
        let start = self.sequence.len();
        self.append_computed(n, &output.tokens);
        if start < self.n_prompt && self.n_generated() == 0 {
            self.stats.prompt_tokens += n;
            self.stats.prefill = self.arrived.elapsed();
        }
        if let Some(embedding) = &mut self.embedding {
            embedding.add(&output.hidden, n);
        }
        if !output.tokens.is_empty() {
            self.n_choosing -= 1;
        }
        let mut all_taken = Vec::new();
        for (index, &token) in output.tokens.iter().enumerate() {
            let logprobs = output.logprobs.get(index).cloned();
            let taken = self.take(token, logprobs, tokenizer, context)?;
            let is_end = taken.finish.is_some();
            all_taken.push(taken);
            if is_end {
                break;
            }
        }
        Ok(all_taken)
    }

    /// Notes that the row of `n` tokens behind its sequence is computed, behind which these were `chosen`. Of drafts
    /// only those that were right count: what is behind them will be overwritten.
    fn append_computed(&mut self, n: usize, chosen: &[u32]) {
        let start = self.sequence.len();
        let guess = std::mem::take(&mut self.guess);
        if guess.is_empty() {
            self.sequence.append(&self.tokens[start..start + n]);
            if let Some(speculation) = &mut self.speculation {
                speculation.passed();
            }
            return;
        }
        // All that was chosen but the last token, which nothing has computed yet.
        let n_computed = chosen.len().clamp(1, guess.tokens().len());
        self.sequence.append(&guess.tokens()[..n_computed]);
        self.sent = self.sequence.len();
        let (drafted, accepted) = (guess.drafts().len(), guess.n_right(chosen));
        self.stats.drafted += drafted;
        self.stats.accepted += accepted;
        if let Some(speculation) = &mut self.speculation {
            speculation.verified(drafted, accepted);
        }
    }

    fn take(
        &mut self,
        token: u32,
        logprobs: Option<Logprobs>,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<Taken, ConstraintError> {
        self.tokens.push(token);
        self.token_logprobs.extend(logprobs.clone());
        self.stats.generated_tokens += 1;
        let now = self.arrived.elapsed();
        if self.stats.generated_tokens == 1 {
            self.stats.first_token = now;
        }
        self.stats.decode = now - self.stats.first_token;
        let mut taken = Taken {
            token,
            text: String::new(),
            logprobs,
            finish: None,
        };
        let may_end = !self.limits.ignore_end || self.constrained.is_any();
        if may_end && tokenizer.is_end_of_generation(token) {
            taken.finish = Some(Finish::EndOfText);
            return Ok(taken);
        }
        let is_complete = self.constrained.take(token)?;
        self.sampler.accept(token);
        let stopped;
        (taken.text, stopped) = self.text.push(token);
        let limit = self.limits.max_tokens.unwrap_or(usize::MAX);
        taken.finish = match self.n_generated() {
            _ if stopped => Some(Finish::StopString),
            _ if is_complete => Some(Finish::EndOfText),
            n if n >= limit => Some(Finish::Length),
            _ if self.tokens.len() >= context => Some(Finish::Context),
            _ => None,
        };
        Ok(taken)
    }

    /// Whether it asks for no token and its prompt is computed.
    pub fn is_prompt_alone(&self) -> bool {
        self.limits.max_tokens == Some(0) && self.sequence.len() >= self.n_prompt
    }

    /// The text that was held back, when the answer ends with `finish`.
    pub fn flush(&mut self, finish: Finish) -> String {
        self.text.flush(finish)
    }

    /// The whole answer, and the pages of what was computed.
    pub fn into_generation(self, finish: Finish) -> (Generation, Sequence) {
        let generation = Generation {
            text: self.text.into_text(),
            tokens: self.tokens[self.n_prompt..].to_vec(),
            logprobs: self.token_logprobs,
            embedding: self.embedding.map_or_else(Vec::new, Embedding::into_vector),
            finish,
            stats: self.stats,
        };
        (generation, self.sequence)
    }
}
