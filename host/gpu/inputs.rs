//! What a step tells the kernels: tokens, positions, pages, and how tokens are chosen.

use kernels_gpu::abi::{
    DevicePtr, LogitEntry, NO_SOURCE, NOT_FINITE, NOTHING_ALLOWED, RowAdjustment, SampleSettings,
};

use super::choices::Choices;
use super::workspace::{Limits, MAX_ENTRIES, MAX_SEQUENCES};
use crate::backend::{NewTokens, Row};
use crate::device::{Buffer, Device, Result};

/// The device's view of a step; all fields are u32.
pub struct Inputs {
    buffer: Buffer,
    /// Lists of biases and counts, and masks: only what a step uses is sent.
    entries: Buffer,
    masks: Buffer,
    limits: Limits,
    /// Elements from the positions to the rows.
    stride: usize,
    /// What the buffer holds, to upload only what changed.
    mirror: Vec<u32>,
    /// Whether it is that for sure.
    is_known: bool,
    /// Whether steps of one token a row take the attention of others.
    is_deterministic: bool,
}

/// A token that the device chose for the step that follows: none that there is.
const NEXT: u32 = NOT_FINITE;
/// One that it gathered for the step before, and that is used up.
const GATHERED: u32 = NOTHING_ALLOWED;

const SETTINGS_WORDS: usize = size_of::<SampleSettings>() / 4;
const ADJUSTMENT_WORDS: usize = size_of::<RowAdjustment>() / 4;

// Where the parts begin. The first is the kernels' alone; of the others each is sent by itself, because what lies
// between two changes is sent too, and the device changes tokens and positions as well.
const TURNS_AT: usize = 0;
const STARTS_AT: usize = TURNS_AT + MAX_SEQUENCES;
const FIRST_POSITIONS_AT: usize = STARTS_AT + MAX_SEQUENCES + 1;
const LOGIT_TOKENS_AT: usize = FIRST_POSITIONS_AT + MAX_SEQUENCES;
const SETTINGS_AT: usize = LOGIT_TOKENS_AT + MAX_SEQUENCES;
const LOGPROBS_AT: usize = SETTINGS_AT + SETTINGS_WORDS * MAX_SEQUENCES;
const ADJUSTMENTS_AT: usize = LOGPROBS_AT + MAX_SEQUENCES;
const SOURCES_AT: usize = ADJUSTMENTS_AT + ADJUSTMENT_WORDS * MAX_SEQUENCES;
const TOKENS_AT: usize = SOURCES_AT + MAX_SEQUENCES;

/// A part of the mirror that changed: its first and last word.
#[derive(Clone, Copy, Default)]
struct Changed(Option<(usize, usize)>);

impl Changed {
    fn set(&mut self, mirror: &mut [u32], index: usize, value: u32) {
        if mirror[index] != value {
            mirror[index] = value;
            let (first, last) = self.0.unwrap_or((index, index));
            self.0 = Some((first.min(index), last.max(index)));
        }
    }

    /// From the first word of both to the last.
    fn and(self, other: Changed) -> Changed {
        Changed(match (self.0, other.0) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        })
    }

    fn set_all<T: bytemuck::NoUninit>(&mut self, mirror: &mut [u32], at: usize, values: &[T]) {
        let words: &[u32] = bytemuck::cast_slice(values);
        for (offset, &word) in words.iter().enumerate() {
            self.set(mirror, at + offset, word);
        }
    }
}

impl Inputs {
    /// Bytes of the buffers.
    pub fn bytes(limits: Limits, vocab: usize) -> [usize; 3] {
        let words = Self::page_table_at(limits) + limits.sequences() * limits.max_pages();
        let masks = limits.sequences() * vocab.div_ceil(32);
        [4 * words, MAX_ENTRIES * size_of::<LogitEntry>(), 4 * masks]
    }

    fn page_table_at(limits: Limits) -> usize {
        TOKENS_AT + 3 * limits.tokens()
    }

    /// Allocates the buffers.
    pub fn new(
        device: &dyn Device,
        limits: Limits,
        vocab: usize,
        is_deterministic: bool,
    ) -> Result<Inputs> {
        let [words, entries, masks] = Self::bytes(limits, vocab);
        let inputs = Inputs {
            buffer: device.alloc(words, "step inputs")?,
            entries: device.alloc(entries, "biases and counts")?,
            masks: device.alloc(masks, "masks")?,
            limits,
            stride: 0,
            mirror: vec![0; words / 4],
            is_known: true,
            is_deterministic,
        };
        device.fill(inputs.buffer.all(), 0)?;
        Ok(inputs)
    }

    /// Entries of a sequence in the page table.
    pub fn max_pages(&self) -> u32 {
        self.limits.max_pages() as u32
    }

    /// Uploads what differs from the step before. A token that an earlier step chose has the row of logits that it was
    /// chosen from in `sources`; true where such tokens have to be gathered, because they are not where they are
    /// needed. The addresses of the parts are the same for all steps of as many tokens, as a graph needs them.
    pub fn upload(
        &mut self,
        device: &dyn Device,
        rows: &[Row<'_>],
        sources: &[Option<usize>],
        choices: &Choices,
    ) -> Result<bool> {
        if !self.is_known {
            self.mirror.fill(0);
            device.upload(self.buffer.all(), bytemuck::cast_slice(&self.mirror))?;
            self.is_known = true;
        }
        let n_tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        let is_decode = n_tokens == rows.len();
        // Without gaps: what lies between them would be uploaded too.
        self.stride = n_tokens;
        let gathers = self.has_to_gather(rows, sources);
        let mirror = &mut self.mirror[..];
        let [mut head, mut ids, mut places] = [Changed::default(); 3];
        let mut token = 0;
        for (index, row) in rows.iter().enumerate() {
            head.set(mirror, STARTS_AT + index, token as u32);
            // Not read by decoding's attention, whose steps then can follow each other without an upload.
            if !is_decode || self.is_deterministic {
                head.set(mirror, FIRST_POSITIONS_AT + index, row.start as u32);
            }
            if gathers {
                let source = sources[index].map_or(NO_SOURCE, |source| source as u32);
                head.set(mirror, SOURCES_AT + index, source);
            }
            let known = row.tokens.known();
            for offset in 0..row.tokens.len() {
                if let Some(&id) = known.get(offset) {
                    ids.set(mirror, TOKENS_AT + token, id);
                }
                let (positions, numbers) = (TOKENS_AT + self.limits.tokens(), n_tokens);
                places.set(mirror, positions + token, (row.start + offset) as u32);
                places.set(mirror, positions + numbers + token, index as u32);
                token += 1;
            }
        }
        head.set(mirror, STARTS_AT + rows.len(), token as u32);
        head.set_all(mirror, LOGIT_TOKENS_AT, &choices.tokens);
        head.set_all(mirror, SETTINGS_AT, &choices.settings);
        head.set_all(mirror, LOGPROBS_AT, &choices.logprobs);
        head.set_all(mirror, ADJUSTMENTS_AT, &choices.adjustments);
        // Where the device has put nothing between them, one copy brings all.
        let apart = !gathers && sources.iter().any(Option::is_some);
        match apart {
            false => self.send(device, head.and(ids).and(places))?,
            true => [head, ids, places]
                .into_iter()
                .try_for_each(|changed| self.send(device, changed))?,
        }
        self.upload_pages(device, rows)?;
        for (buffer, bytes) in [
            (&self.entries, bytemuck::cast_slice(&choices.entries)),
            (&self.masks, bytemuck::cast_slice::<u32, u8>(&choices.masks)),
        ] {
            if !bytes.is_empty() {
                device.upload(buffer.slice(0, bytes.len())?, bytes)?;
            }
        }
        Ok(gathers)
    }

    /// Whether a token of `sources` is not where the step before left it, or something that is sent would cover it.
    fn has_to_gather(&self, rows: &[Row<'_>], sources: &[Option<usize>]) -> bool {
        let is_in_place = |(index, source): (usize, &Option<usize>)| {
            *source == Some(index) && self.mirror[TOKENS_AT + index] == NEXT
        };
        let any = sources.iter().any(Option::is_some);
        let all_in_place =
            rows.len() == sources.len() && sources.iter().enumerate().all(is_in_place);
        any && !all_in_place
    }

    /// A copy for each row whose pages changed.
    fn upload_pages(&mut self, device: &dyn Device, rows: &[Row<'_>]) -> Result<()> {
        let max_pages = self.limits.max_pages();
        for (index, row) in rows.iter().enumerate() {
            let table = Self::page_table_at(self.limits) + index * max_pages;
            let mut changed = Changed::default();
            let pages = &row.pages[..row.pages.len().min(max_pages)];
            changed.set_all(&mut self.mirror, table, pages);
            self.send(device, changed)?;
        }
        Ok(())
    }

    fn send(&self, device: &dyn Device, changed: Changed) -> Result<()> {
        let Some((first, last)) = changed.0 else {
            return Ok(());
        };
        let to = self.buffer.slice(4 * first, 4 * (last + 1 - first))?;
        device.upload(to, bytemuck::cast_slice(&self.mirror[first..=last]))
    }

    /// Notes what a step of `rows` leaves behind that chose tokens of the first `n_chosen` rows of logits: their turns,
    /// and where each row has one token and one row of logits, `moves_on`, the next step's tokens and positions.
    pub fn was_sent(&mut self, rows: &[Row<'_>], n_chosen: usize, moves_on: bool) {
        for turn in &mut self.mirror[TURNS_AT..][..n_chosen] {
            *turn ^= 1;
        }
        for (index, row) in rows.iter().enumerate() {
            if matches!(row.tokens, NewTokens::ChosenBy(..)) {
                self.mirror[TOKENS_AT + index] = GATHERED;
            }
        }
        if moves_on {
            self.mirror[TOKENS_AT..][..n_chosen].fill(NEXT);
            for position in &mut self.mirror[TOKENS_AT + self.limits.tokens()..][..n_chosen] {
                *position += 1;
            }
        }
    }

    /// A step failed: what the device has of it is not known.
    pub fn forget(&mut self) {
        self.is_known = false;
    }

    /// The half of the mailbox that each row of logits of the next step posts to.
    pub fn turns(&self) -> &[u32] {
        &self.mirror[TURNS_AT..STARTS_AT]
    }

    fn at(&self, index: usize) -> DevicePtr<u32> {
        DevicePtr::from_address(self.buffer.addr() + 4 * index as u64)
    }

    /// As [`Inputs::turns`], which only the kernels change.
    pub fn turns_on_device(&self) -> DevicePtr<u32> {
        self.at(TURNS_AT)
    }

    /// Ids, `[T]`.
    pub fn token_ids(&self) -> DevicePtr<u32> {
        self.at(TOKENS_AT)
    }

    /// Where tokens are gathered from.
    pub fn sources(&self) -> DevicePtr<u32> {
        self.at(SOURCES_AT)
    }

    /// Position of each token from `first` on.
    pub fn positions(&self, first: usize) -> DevicePtr<u32> {
        self.at(TOKENS_AT + self.limits.tokens() + first)
    }

    /// Row of each token from `first` on.
    pub fn sequences(&self, first: usize) -> DevicePtr<u32> {
        self.at(TOKENS_AT + self.limits.tokens() + self.stride + first)
    }

    /// First token of each row from `first` on, and behind the last one the number of tokens.
    pub fn query_starts(&self, first: usize) -> DevicePtr<u32> {
        self.at(STARTS_AT + first)
    }

    /// Position of the first token of each row from `first` on.
    pub fn first_positions(&self, first: usize) -> DevicePtr<u32> {
        self.at(FIRST_POSITIONS_AT + first)
    }

    /// The token of the step that each row of logits belongs to.
    pub fn logit_tokens(&self) -> DevicePtr<u32> {
        self.at(LOGIT_TOKENS_AT)
    }

    /// How tokens are chosen, for each row of logits.
    pub fn settings(&self) -> DevicePtr<SampleSettings> {
        self.at(SETTINGS_AT).cast()
    }

    /// Log-probabilities that are wanted, for each row of logits.
    pub fn logprobs(&self) -> DevicePtr<u32> {
        self.at(LOGPROBS_AT)
    }

    /// What changes each row of logits.
    pub fn adjustments(&self) -> DevicePtr<RowAdjustment> {
        self.at(ADJUSTMENTS_AT).cast()
    }

    /// Lists of the adjustments.
    pub fn entries(&self) -> DevicePtr<LogitEntry> {
        DevicePtr::from_address(self.entries.addr())
    }

    /// Masks of the adjustments.
    pub fn masks(&self) -> DevicePtr<u32> {
        DevicePtr::from_address(self.masks.addr())
    }

    /// Pages of each row from `first` on, `[rows][max_pages]`.
    pub fn page_table(&self, first: usize) -> DevicePtr<u32> {
        self.at(Self::page_table_at(self.limits) + first * self.limits.max_pages())
    }
}
