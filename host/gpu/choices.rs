//! What the device is told of the tokens that it chooses in a step.

use std::ops::Range;

use bytemuck::Zeroable;
use kernels_gpu::abi::{LogitEntry, NO_BIAS, NO_MASK, POSTED_ROWS, RowAdjustment, SampleSettings};

use super::graphs::Choosing;
use super::workspace::{Limits, MAX_ENTRIES};
use crate::backend::{Choice, Penalties, Report, Row};

/// The rows of logits that tokens are chosen from, and how. In a step of one token for each sequence, and perhaps
/// drafts behind it, these are all tokens of the step in their order, so that they do not have to be moved.
#[derive(Default)]
pub struct Choices {
    /// For each row of the step those that its tokens are chosen from; `None` where the device chooses none.
    of_row: Vec<Option<Range<usize>>>,
    /// The token of the step that each of them belongs to.
    pub tokens: Vec<u32>,
    /// Whether each token of the step has one, in the order of the tokens.
    pub is_of_each: bool,
    /// How tokens are drawn.
    pub settings: Vec<SampleSettings>,
    /// Log-probabilities that are wanted: 0 for none, else 1 and how many of the likeliest.
    pub logprobs: Vec<u32>,
    /// What changes the logits.
    pub adjustments: Vec<RowAdjustment>,
    /// Lists of `adjustments`.
    pub entries: Vec<LogitEntry>,
    /// Masks of `adjustments`.
    pub masks: Vec<u32>,
}

impl Choices {
    /// Those of a step of `rows`, as far as a device with `limits` chooses them. The host chooses where more than tokens
    /// and log-probabilities are asked for, where surprise decides, and where there is no room.
    pub fn of(rows: &[Row<'_>], limits: Limits) -> Choices {
        let n_tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        let are_all_first = rows.iter().all(|row| row.first_chosen() == 0);
        let may_be_of_each = are_all_first && n_tokens <= limits.sequences();
        let most = limits.logit_rows().min(POSTED_ROWS as usize);
        let mut choices = Choices::default();
        let mut first_token = 0;
        for row in rows {
            let chosen = row.first_chosen()..row.tokens.len();
            let begin = choices.tokens.len();
            let choice = row
                .ask
                .choose
                .as_ref()
                .filter(|choice| begin + chosen.len() <= most && choices.can_take(row, choice));
            match choice {
                Some(choice) => {
                    for (behind, at) in chosen.enumerate() {
                        choices.push(first_token + at, row, &choice.behind(behind));
                    }
                    choices.of_row.push(Some(begin..choices.tokens.len()));
                }
                None => {
                    if may_be_of_each && row.tokens.len() == 1 {
                        choices.push(first_token, row, &Choice::GREEDY);
                    }
                    choices.of_row.push(None);
                }
            }
            first_token += row.tokens.len();
        }
        choices.is_of_each = may_be_of_each && choices.tokens.len() == n_tokens;
        choices
    }

    fn can_take(&self, row: &Row<'_>, choice: &Choice<'_>) -> bool {
        let is_plain = matches!(row.ask.report, Report::Nothing | Report::TopLogprobs(_));
        let of_drafts = choice.drafts.iter().map(|draft| draft.counts.len());
        let counts = choice.counts.len() + of_drafts.sum::<usize>();
        let entries = (1 + choice.drafts.len()) * choice.bias.len() + counts;
        is_plain
            && choice.draw.is_none_or(|draw| draw.settings().is_some())
            && self.entries.len() + entries <= MAX_ENTRIES
    }

    fn push(&mut self, token: usize, row: &Row<'_>, choice: &Choice<'_>) {
        // In full, so that a part of a choice that the kernels do not know cannot be forgotten here.
        let Choice {
            draw,
            mask,
            bias,
            counts,
            penalties,
            drafts: _, // of `behind`
        } = *choice;
        let begin = self.entries.len();
        self.entries
            .extend(bias.iter().map(|&(token, bias)| LogitEntry {
                token,
                bias,
                count: 0,
                original: 0.0,
            }));
        self.entries
            .extend(counts.iter().map(|&(token, count)| LogitEntry {
                token,
                bias: NO_BIAS,
                count,
                original: 0.0,
            }));
        // Those of one token lie together, its bias before its penalties.
        self.entries[begin..].sort_by_key(|entry| entry.token);
        let mask_begin = self.masks.len() as u32;
        self.masks.extend(mask.unwrap_or_default());
        let Penalties {
            repeat,
            presence,
            frequency,
        } = penalties;
        self.adjustments.push(RowAdjustment {
            mask: mask.map_or(NO_MASK, |_| mask_begin),
            begin: begin as u32,
            end: self.entries.len() as u32,
            repeat,
            presence,
            frequency,
        });
        // For anything but a draw the kernel takes the likeliest token.
        let settings = draw.and_then(|draw| draw.settings());
        self.settings
            .push(settings.unwrap_or_else(SampleSettings::zeroed));
        self.logprobs
            .push(match (row.ask.report, self.is_chosen(row)) {
                (Report::TopLogprobs(most), true) => 1 + most as u32,
                _ => 0,
            });
        self.tokens.push(token as u32);
    }

    fn is_chosen(&self, row: &Row<'_>) -> bool {
        row.ask.choose.is_some()
    }

    /// The rows of logits of row `row` of the step, where the device chooses its tokens.
    pub fn of_row(&self, row: usize) -> Option<Range<usize>> {
        self.of_row.get(row).cloned().flatten()
    }

    /// Which kernels it takes.
    pub fn choosing(&self) -> Choosing {
        Choosing {
            is_any: self.of_row.iter().any(Option::is_some),
            draws: self
                .settings
                .iter()
                .any(|settings| settings.temperature > 0.0),
            adjusts: !self.entries.is_empty() || !self.masks.is_empty(),
            logprobs: self.logprobs.iter().any(|&wanted| wanted > 0),
        }
    }
}
