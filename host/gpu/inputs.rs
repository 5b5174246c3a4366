//! What a step tells the kernels: tokens, positions, pages. One buffer, so that one copy brings it.

use bytemuck::Zeroable;
use kernels_gpu::abi::{DevicePtr, NOT_FINITE, SampleSettings};

use super::workspace::{Limits, MAX_SEQUENCES};
use crate::backend::{Draw, SequenceStep, Want};
use crate::device::{Buffer, Device, Result};

/// The device's view of a step; all fields are u32.
pub struct Inputs {
    buffer: Buffer,
    limits: Limits,
    /// Elements from the token ids to the positions, and from there to the sequences.
    stride: usize,
    /// What the buffer holds, to upload only what changed.
    mirror: Vec<u32>,
}

/// A token that the device chose and the host has not read, or has no use for: none that there is.
const UNKNOWN: u32 = NOT_FINITE;

/// u32 of a sequence's settings for sampling.
const SETTINGS_WORDS: usize = size_of::<SampleSettings>() / 4;

// Where the parts begin: what every step changes comes first, and the page table last.
// (The first is the kernels' alone.)
const TURNS_AT: usize = 0;
const STARTS_AT: usize = TURNS_AT + MAX_SEQUENCES;
const FIRST_POSITIONS_AT: usize = STARTS_AT + MAX_SEQUENCES + 1;
const LAST_TOKENS_AT: usize = FIRST_POSITIONS_AT + MAX_SEQUENCES;
const SETTINGS_AT: usize = LAST_TOKENS_AT + MAX_SEQUENCES;
const TOKENS_AT: usize = SETTINGS_AT + SETTINGS_WORDS * MAX_SEQUENCES;

impl Inputs {
    /// Bytes of the buffer.
    pub fn bytes(limits: Limits) -> usize {
        4 * (Self::page_table_at(limits) + MAX_SEQUENCES * limits.max_pages())
    }

    fn most_tokens(limits: Limits) -> usize {
        limits.max_tokens.max(MAX_SEQUENCES)
    }

    fn page_table_at(limits: Limits) -> usize {
        TOKENS_AT + 3 * Self::most_tokens(limits)
    }

    /// Allocates the buffer.
    pub fn new(device: &dyn Device, limits: Limits) -> Result<Inputs> {
        let bytes = Self::bytes(limits);
        let inputs = Inputs {
            buffer: device.alloc(bytes, "step inputs")?,
            limits,
            stride: Self::most_tokens(limits),
            mirror: vec![0; bytes / 4],
        };
        device.fill(inputs.buffer.all(), 0)?;
        Ok(inputs)
    }

    /// Entries of a sequence in the page table.
    pub fn max_pages(&self) -> u32 {
        self.limits.max_pages() as u32
    }

    /// Uploads what differs from the step before. The addresses of the parts are good until the next upload;
    /// they are the same for all steps of as many tokens, as a graph needs them.
    pub fn upload(&mut self, device: &dyn Device, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let n_tokens: usize = sequences.iter().map(|step| step.tokens.len()).sum();
        // Without gaps: what lies between them would be uploaded too.
        self.stride = n_tokens;
        let stride = self.stride;
        let max_pages = self.limits.max_pages();
        let mirror = &mut self.mirror;
        let mut changed: Option<(usize, usize)> = None;
        let mut set = |index: usize, value: u32| {
            if mirror[index] != value {
                mirror[index] = value;
                let (first, last) = changed.unwrap_or((index, index));
                changed = Some((first.min(index), last.max(index)));
            }
        };
        let is_decode = n_tokens == sequences.len();
        let mut token = 0;
        for (index, step) in sequences.iter().enumerate() {
            set(STARTS_AT + index, token as u32);
            // Not read by such steps, which then can follow each other without an upload.
            if !is_decode {
                set(FIRST_POSITIONS_AT + index, step.start as u32);
                let last = token + step.tokens.len() - 1;
                set(LAST_TOKENS_AT + index, last as u32);
            }
            for (offset, &id) in step.tokens.iter().enumerate() {
                set(TOKENS_AT + token, id);
                set(TOKENS_AT + stride + token, (step.start + offset) as u32);
                set(TOKENS_AT + 2 * stride + token, index as u32);
                token += 1;
            }
            let settings = settings(step.want);
            let words: [u32; SETTINGS_WORDS] = bytemuck::cast(settings);
            for (offset, word) in words.into_iter().enumerate() {
                set(SETTINGS_AT + SETTINGS_WORDS * index + offset, word);
            }
            let row = Self::page_table_at(self.limits) + index * max_pages;
            for (offset, &page) in step.pages.iter().take(max_pages).enumerate() {
                set(row + offset, page);
            }
        }
        set(STARTS_AT + sequences.len(), token as u32);
        if let Some((first, last)) = changed {
            let to = self.buffer.slice(4 * first, 4 * (last + 1 - first))?;
            device.upload(to, bytemuck::cast_slice(&self.mirror[first..=last]))?;
        }
        Ok(())
    }

    /// A step of one token for each of `n` sequences was sent that posts its tokens and makes them the next inputs.
    pub fn moved_on(&mut self, n: usize) {
        self.tokens_are(&vec![UNKNOWN; n]);
        for position in &mut self.mirror[TOKENS_AT + self.stride..][..n] {
            *position += 1;
        }
        for turn in &mut self.mirror[TURNS_AT..][..n] {
            *turn ^= 1;
        }
    }

    /// The tokens on the device, as far as they became known.
    pub fn tokens_are(&mut self, tokens: &[u32]) {
        self.mirror[TOKENS_AT..][..tokens.len()].copy_from_slice(tokens);
    }

    /// The half of the mailbox that the sequences of the next step post to.
    pub fn turns(&self) -> &[u32] {
        &self.mirror[TURNS_AT..STARTS_AT]
    }

    /// Whether the device has the pages of `sequences`.
    pub fn has_pages_of(&self, sequences: &[SequenceStep<'_>]) -> bool {
        let max_pages = self.limits.max_pages();
        let rows = self.mirror[Self::page_table_at(self.limits)..].chunks(max_pages);
        sequences.iter().zip(rows).all(|(step, row)| {
            let pages = &step.pages[..step.pages.len().min(max_pages)];
            row.starts_with(pages)
        })
    }

    fn at(&self, index: usize) -> DevicePtr<u32> {
        DevicePtr::from_address(self.buffer.addr() + 4 * index as u64)
    }

    /// Ids, `[T]`.
    pub fn token_ids(&self) -> DevicePtr<u32> {
        self.at(TOKENS_AT)
    }

    /// Position of each token, `[T]`.
    pub fn positions(&self) -> DevicePtr<u32> {
        self.at(TOKENS_AT + self.stride)
    }

    /// Sequence of each token, `[T]`.
    pub fn sequences(&self) -> DevicePtr<u32> {
        self.at(TOKENS_AT + 2 * self.stride)
    }

    /// First token of each sequence, and behind the last one the number of tokens.
    pub fn query_starts(&self) -> DevicePtr<u32> {
        self.at(STARTS_AT)
    }

    /// Of each sequence the half of the mailbox that is next; only the kernels write it.
    pub fn turns_on_device(&self) -> DevicePtr<u32> {
        self.at(TURNS_AT)
    }

    /// The last token of each sequence from `first` on, for a step that has several of one.
    pub fn last_tokens(&self, first: usize) -> DevicePtr<u32> {
        self.at(LAST_TOKENS_AT + first)
    }

    /// Position of each sequence's first token.
    pub fn first_positions(&self) -> DevicePtr<u32> {
        self.at(FIRST_POSITIONS_AT)
    }

    /// How the tokens of sequences from `first` on are chosen.
    pub fn settings(&self, first: usize) -> DevicePtr<SampleSettings> {
        self.at(SETTINGS_AT + SETTINGS_WORDS * first).cast()
    }

    /// Pages of each sequence, `[sequences][max_pages]`.
    pub fn page_table(&self) -> DevicePtr<u32> {
        self.at(Self::page_table_at(self.limits))
    }
}

/// What the sampling kernel is told; for anything but a draw it takes the likeliest token.
fn settings(want: Want) -> SampleSettings {
    let Want::Draw(draw) = want else {
        return SampleSettings::zeroed();
    };
    // In full, so that a part of a draw that the kernel does not know cannot be forgotten here.
    let Draw {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
    } = draw;
    SampleSettings {
        temperature,
        top_k,
        top_p,
        min_p,
        seed: [seed as u32, (seed >> 32) as u32],
    }
}
