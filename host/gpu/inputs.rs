//! What a step tells the kernels: tokens, positions, pages. One buffer, so that one copy brings it.

use bytemuck::Zeroable;
use kernels_gpu::abi::{DevicePtr, NOT_FINITE, SampleSettings};

use super::workspace::{Limits, MAX_SEQUENCES};
use crate::backend::{Draw, Row};
use crate::device::{Buffer, Device, Result};
use crate::sampling::uniform;

/// The device's view of a step; all fields are u32.
pub struct Inputs {
    buffer: Buffer,
    limits: Limits,
    /// Elements from the token ids to the positions, and from there to the sequences.
    stride: usize,
    /// What the buffer holds, to upload only what changed.
    mirror: Vec<u32>,
    /// Whether steps of one token a row take the attention of others.
    is_deterministic: bool,
}

/// A token that the device chose and the host has not read, or has no use for: none that there is.
const UNKNOWN: u32 = NOT_FINITE;

/// u32 of a sequence's settings for sampling.
const SETTINGS_WORDS: usize = size_of::<SampleSettings>() / 4;

// Where the parts begin: what every step changes comes first, and the page table last.
const STARTS_AT: usize = 0;
const FIRST_POSITIONS_AT: usize = STARTS_AT + MAX_SEQUENCES + 1;
const SETTINGS_AT: usize = FIRST_POSITIONS_AT + MAX_SEQUENCES;
const TOKENS_AT: usize = SETTINGS_AT + SETTINGS_WORDS * MAX_SEQUENCES;

impl Inputs {
    /// Bytes of the buffer.
    pub fn bytes(limits: Limits) -> usize {
        4 * (Self::page_table_at(limits) + limits.sequences() * limits.max_pages())
    }

    fn most_tokens(limits: Limits) -> usize {
        limits.tokens()
    }

    fn page_table_at(limits: Limits) -> usize {
        TOKENS_AT + 3 * Self::most_tokens(limits)
    }

    /// Allocates the buffer.
    pub fn new(device: &dyn Device, limits: Limits, is_deterministic: bool) -> Result<Inputs> {
        let bytes = Self::bytes(limits);
        let inputs = Inputs {
            buffer: device.alloc(bytes, "step inputs")?,
            limits,
            stride: Self::most_tokens(limits),
            mirror: vec![0; bytes / 4],
            is_deterministic,
        };
        device.fill(inputs.buffer.all(), 0)?;
        Ok(inputs)
    }

    /// Entries of a sequence in the page table.
    pub fn max_pages(&self) -> u32 {
        self.limits.max_pages() as u32
    }

    /// Uploads what differs from the step before; the device chooses tokens of the rows `choosing`, in that order. The addresses of the parts are good until the next upload;
    /// they are the same for all steps of as many tokens, as a graph needs them.
    pub fn upload(
        &mut self,
        device: &dyn Device,
        rows: &[Row<'_>],
        choosing: &[usize],
    ) -> Result<()> {
        let n_tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
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
        let is_decode = n_tokens == rows.len();
        let mut token = 0;
        for (index, row) in rows.iter().enumerate() {
            set(STARTS_AT + index, token as u32);
            // Not read by decoding's attention, whose steps then can follow each other without an upload.
            if !is_decode || self.is_deterministic {
                set(FIRST_POSITIONS_AT + index, row.start as u32);
            }
            for (offset, &id) in row.tokens.known().iter().enumerate() {
                set(TOKENS_AT + token, id);
                set(TOKENS_AT + stride + token, (row.start + offset) as u32);
                set(TOKENS_AT + 2 * stride + token, index as u32);
                token += 1;
            }
            let table = Self::page_table_at(self.limits) + index * max_pages;
            for (offset, &page) in row.pages.iter().take(max_pages).enumerate() {
                set(table + offset, page);
            }
        }
        set(STARTS_AT + rows.len(), token as u32);
        for (index, &row) in choosing.iter().enumerate() {
            let words: [u32; SETTINGS_WORDS] = bytemuck::cast(settings(&rows[row]));
            for (offset, word) in words.into_iter().enumerate() {
                set(SETTINGS_AT + SETTINGS_WORDS * index + offset, word);
            }
        }
        if let Some((first, last)) = changed {
            let to = self.buffer.slice(4 * first, 4 * (last + 1 - first))?;
            device.upload(to, bytemuck::cast_slice(&self.mirror[first..=last]))?;
        }
        Ok(())
    }

    fn at(&self, index: usize) -> DevicePtr<u32> {
        DevicePtr::from_address(self.buffer.addr() + 4 * index as u64)
    }

    /// Ids, `[T]`.
    pub fn token_ids(&self) -> DevicePtr<u32> {
        self.at(TOKENS_AT)
    }

    /// Position of each token from `first` on.
    pub fn positions(&self, first: usize) -> DevicePtr<u32> {
        self.at(TOKENS_AT + self.stride + first)
    }

    /// Row of each token from `first` on.
    pub fn sequences(&self, first: usize) -> DevicePtr<u32> {
        self.at(TOKENS_AT + 2 * self.stride + first)
    }

    /// First token of each row from `first` on, and behind the last one the number of tokens.
    pub fn query_starts(&self, first: usize) -> DevicePtr<u32> {
        self.at(STARTS_AT + first)
    }

    /// Position of the first token of each row from `first` on.
    pub fn first_positions(&self, first: usize) -> DevicePtr<u32> {
        self.at(FIRST_POSITIONS_AT + first)
    }

    /// How tokens are chosen, for each row of logits.
    pub fn settings(&self) -> DevicePtr<SampleSettings> {
        self.at(SETTINGS_AT).cast()
    }

    /// Pages of each row from `first` on, `[rows][max_pages]`.
    pub fn page_table(&self, first: usize) -> DevicePtr<u32> {
        self.at(Self::page_table_at(self.limits) + first * self.limits.max_pages())
    }
}

/// What the sampling kernel is told; for anything but a draw it takes the likeliest token.
fn settings(row: &Row<'_>) -> SampleSettings {
    let Some(draw) = row.ask.choose.and_then(|choice| choice.draw) else {
        return SampleSettings::zeroed();
    };
    // In full, so that a part of a draw that the kernel does not know cannot be forgotten here.
    let Draw {
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p: _, // the host's choice
        seed,
    } = draw;
    SampleSettings {
        temperature,
        top_k,
        top_p,
        min_p,
        uniform: uniform(seed, (row.end() - 1) as u32),
    }
}
