//! What a step is made of, and what it gives back.

use super::{Draw, NotFinite, PageId};

/// A step that was [submitted](super::Backend::submit): the backend's steps, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The part of a step that belongs to one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// New tokens, at least one.
    pub tokens: NewTokens<'a>,
    /// Position of the first of them: the number of tokens already in the cache.
    pub start: usize,
    /// The pages of positions `0..end()`, in order.
    pub pages: &'a [PageId],
    /// What to give back.
    pub ask: Ask<'a>,
}

impl<'a> Row<'a> {
    /// Number of positions after this step.
    pub fn end(&self) -> usize {
        // A start near the largest integer must not wrap round.
        self.start.saturating_add(self.tokens.len())
    }

    /// Index of the first of its tokens whose successor is chosen: the last one that is no draft.
    pub fn first_chosen(&self) -> usize {
        let drafts = self.ask.choose.map_or(0, |choice| choice.drafts.len());
        self.tokens.len().saturating_sub(1 + drafts)
    }

    /// Its tokens as rows of one each, where the first is no draft and all others are.
    pub fn positions(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let row = *self;
        (0..row.tokens.len()).map(move |at| Row {
            tokens: match row.tokens {
                NewTokens::Known(tokens) => NewTokens::Known(&tokens[at..=at]),
                chosen => chosen,
            },
            start: row.start + at,
            ask: Ask {
                choose: row.ask.choose.map(|choice| choice.behind(at)),
                ..row.ask
            },
            ..row
        })
    }
}

/// The new tokens of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTokens<'a> {
    /// These.
    Known(&'a [u32]),
    /// The one token that a row of an earlier step chooses, perhaps not yet. Where that row fails, any token.
    ChosenBy(Ticket, usize),
}

impl<'a> NewTokens<'a> {
    /// How many; never none where they are valid.
    #[allow(clippy::len_without_is_empty)] // a row has tokens
    pub fn len(&self) -> usize {
        match self {
            NewTokens::Known(tokens) => tokens.len(),
            NewTokens::ChosenBy(..) => 1,
        }
    }

    /// Those that the host knows.
    pub fn known(&self) -> &'a [u32] {
        match self {
            NewTokens::Known(tokens) => tokens,
            NewTokens::ChosenBy(..) => &[],
        }
    }
}

/// What a row is to give back: a choice of the next token, a report, both or nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask<'a> {
    /// How the token behind the last one is chosen; `None` where nobody wants one, as inside of a prompt.
    pub choose: Option<Choice<'a>>,
    /// What to tell of the computation beside that.
    pub report: Report,
}

impl Ask<'_> {
    /// Nothing: a chunk of a prompt whose end is still to come.
    pub const NOTHING: Ask<'static> = Ask {
        choose: None,
        report: Report::Nothing,
    };
    /// The most probable next token.
    pub const GREEDY: Ask<'static> = Ask {
        choose: Some(Choice::GREEDY),
        report: Report::Nothing,
    };
    /// Logits of the last token.
    pub const LOGITS: Ask<'static> = Ask {
        choose: None,
        report: Report::Logits,
    };
    /// Logits of every new token.
    pub const ALL_LOGITS: Ask<'static> = Ask {
        choose: None,
        report: Report::AllLogits,
    };
}

/// How a token is chosen from logits, with the names of [`crate::sampling`]. First the mask, the bias and the
/// penalties, then the draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice<'a> {
    /// At random; `None` takes the most probable token.
    pub draw: Option<Draw>,
    /// A bit for each token of the vocabulary, lowest first, 1 where it is allowed.
    pub mask: Option<&'a [u32]>,
    /// Added to the logits of these tokens; minus infinity forbids one.
    pub bias: &'a [(u32, f32)],
    /// Tokens and how often each occurred, for the penalties.
    pub counts: &'a [(u32, u32)],
    /// What occurrences cost.
    pub penalties: Penalties,
    /// As many of the row's last tokens are guesses. A token is chosen behind each of them too, as far as the guesses
    /// before it were right.
    pub drafts: &'a [Draft],
}

/// What differs in the choice behind a guess, because it depends on the tokens before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// As [`Choice::mask`].
    pub mask: Option<Vec<u32>>,
    /// As [`Choice::counts`].
    pub counts: Vec<(u32, u32)>,
}

impl<'a> Choice<'a> {
    /// The most probable token.
    pub const GREEDY: Choice<'static> = Choice {
        draw: None,
        mask: None,
        bias: &[],
        counts: &[],
        penalties: Penalties::NONE,
        drafts: &[],
    };

    /// The choice behind the first `n` drafts, none of which are left; none of them is the choice itself.
    pub fn behind(&self, n: usize) -> Choice<'a> {
        let own = Choice {
            drafts: &[],
            ..*self
        };
        match n.checked_sub(1).and_then(|last| self.drafts.get(last)) {
            None => own,
            Some(draft) => Choice {
                mask: draft.mask.as_deref(),
                counts: &draft.counts,
                ..own
            },
        }
    }
}

/// What earlier occurrences of a token cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides positive logits and multiplies negative ones.
    pub repeat: f32,
    /// Subtracted once.
    pub presence: f32,
    /// Subtracted for each occurrence.
    pub frequency: f32,
}

impl Penalties {
    /// Nothing.
    pub const NONE: Penalties = Penalties {
        repeat: 1.0,
        presence: 0.0,
        frequency: 0.0,
    };
}

/// What a row tells beside its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Nothing.
    Nothing,
    /// For each chosen token its log-probability and those of the most probable ones, as many as this; at most
    /// [`MAX_LOGPROBS`].
    TopLogprobs(usize),
    /// Logits of the last token.
    Logits,
    /// Logits of every token.
    AllLogits,
    /// The vector behind the last norm.
    Hidden(Pooling),
}

/// Most alternatives of a token that are reported.
pub const MAX_LOGPROBS: usize = 20;

/// Which hidden state stands for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's.
    Last,
    /// The mean over the row's tokens.
    Mean,
}

/// What a row gave back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// The drafts that were right, and the token behind them; empty where nothing was to be chosen. Where that token
    /// cannot be chosen (a NaN, nothing allowed), the drafts alone: who asks again gets the error.
    pub tokens: Vec<u32>,
    /// For each of `tokens`, where they were asked for.
    pub logprobs: Vec<Logprobs>,
    /// `[1 or tokens, vocab]`, row-major, where they were asked for.
    pub logits: Vec<f32>,
    /// The hidden state, where it was asked for.
    pub hidden: Vec<f32>,
}

impl Output {
    /// The last chosen token.
    pub fn token(&self) -> Option<u32> {
        self.tokens.last().copied()
    }
}

/// Log-probabilities by the model's own logits, before mask, bias, penalties and temperature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// The most probable tokens, the first one first.
    pub top: Vec<(u32, f32)>,
}

/// Why a row has no output; what is behind its first choice is no reason. No other row of the step is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Logits that are not finite: any choice would hide it.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Mask and bias leave no token.
    #[error("no token may be chosen at position {position}: mask and bias forbid all of them")]
    NothingAllowed {
        /// The position of the token whose successor was asked for.
        position: usize,
    },
}

/// What a step gave for one row.
pub type RowResult = Result<Output, RowError>;
