//! SentencePiece's BPE (`tokenizer.ggml.model` = `llama`).
//!
//! Starting from single characters, the two neighbours whose concatenation is the token with the
//! highest score are joined, the leftmost first among equals, until no two neighbours make a
//! token. Characters that are in no token become byte tokens.
//!
//! This is written out here rather than built on the crate `tokenizers`: its BPE wants a list of
//! merges with distinct ranks, which these files do not hold. Deriving one (every way to cut every
//! token in two, half a million pairs for Gemma) costs more at each start than the algorithm is
//! long, and loses the rule for equal scores.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::TokenizerError;
use super::vocab::{TokenKind, Vocab, byte_of, check_length};

/// SentencePiece's visible space, U+2581.
pub(super) const SPACE: &str = "\u{2581}";

#[derive(Debug)]
pub(super) struct Spm {
    /// What plain text may become: control, unknown and byte tokens are not in it.
    pieces: HashMap<Box<str>, Piece>,
    /// The length in bytes of the longest piece, so that longer candidates need no look-up.
    longest: usize,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    id: u32,
    score: f32,
}

impl Spm {
    pub fn new(vocab: &Vocab, scores: &[f32]) -> Result<Spm, TokenizerError> {
        // Without them nothing tells which neighbours to join first.
        if scores.is_empty() {
            return Err(TokenizerError::Missing {
                key: "tokenizer.ggml.scores",
                of: "SentencePiece",
            });
        }
        check_length("tokenizer.ggml.scores", scores.len(), vocab.tokens.len())?;
        let mut pieces: HashMap<Box<str>, Piece> = HashMap::with_capacity(vocab.tokens.len());
        let mut bytes = Box::new([None; 256]);
        for (id, text, kind) in vocab.iter() {
            match kind {
                TokenKind::Control | TokenKind::Unknown => {}
                TokenKind::Byte => {
                    if let Some(byte) = byte_of(text) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused => {
                    let score = scores.get(id as usize).copied().unwrap_or(0.0);
                    pieces.insert(text.into(), Piece { id, score });
                }
            }
        }
        // A vocabulary without byte tokens may still have the single bytes as texts.
        for byte in 0..0x80u8 {
            let slot = &mut bytes[usize::from(byte)];
            *slot = slot.or_else(|| {
                pieces
                    .get(char::from(byte).to_string().as_str())
                    .map(|p| p.id)
            });
        }
        Ok(Spm {
            longest: pieces.keys().map(|text| text.len()).max().unwrap_or(0),
            pieces,
            bytes,
            unknown: vocab.unk,
        })
    }

    /// Appends the tokens of plain `text`, whose spaces are already written as [`SPACE`]. No
    /// characters are joined to one of `barred`.
    pub fn encode(
        &self,
        text: &str,
        barred: &BTreeSet<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut merge = Merge::new(self, text, barred)?;
        merge.run();
        let mut at = 0;
        while let Some(symbol) = merge.symbols.get(at) {
            let symbol_text = merge.text(symbol);
            match self.pieces.get(symbol_text) {
                Some(piece) => out.push(piece.id),
                None => self.encode_bytes(symbol_text, out)?,
            }
            at = symbol.next as usize;
        }
        Ok(())
    }

    fn encode_bytes(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        for byte in text.bytes() {
            let id = self.bytes[usize::from(byte)].or(self.unknown);
            out.push(id.ok_or(TokenizerError::NoByteToken(byte))?);
        }
        Ok(())
    }
}

/// A stretch of the text that is one symbol. A symbol that was joined to its left neighbour has
/// length 0 and is out of the list.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}

/// The end of the list of symbols, in both directions.
const NONE: u32 = u32::MAX;

/// Two neighbours that would make a token; the greatest is joined first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    score: OrderedScore,
    left: Reverse<u32>,
    right: u32,
    len: u32,
}

/// A score in the order of real numbers; a NaN from a damaged file has some place in it, too.
#[derive(PartialEq, Eq)]
struct OrderedScore(u32);

impl OrderedScore {
    fn new(score: f32) -> OrderedScore {
        // Adding zero makes -0 and 0 equal. Then positive values sort by their bits with the sign
        // set, negative ones by the complement of theirs.
        let bits = (score + 0.0).to_bits();
        OrderedScore(if bits >> 31 == 0 {
            bits | 1 << 31
        } else {
            !bits
        })
    }
}

impl PartialOrd for OrderedScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

struct Merge<'a> {
    spm: &'a Spm,
    text: &'a str,
    barred: &'a BTreeSet<u32>,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl<'a> Merge<'a> {
    fn new(
        spm: &'a Spm,
        text: &'a str,
        barred: &'a BTreeSet<u32>,
    ) -> Result<Merge<'a>, TokenizerError> {
        if u32::try_from(text.len()).is_err() {
            return Err(TokenizerError::TextTooLong(text.len()));
        }
        let mut symbols: Vec<Symbol> = (0..)
            .zip(text.char_indices())
            .map(|(index, (start, c))| Symbol {
                start: start as u32,
                len: c.len_utf8() as u32,
                prev: if index == 0 { NONE } else { index - 1 },
                next: index + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        Ok(Merge {
            spm,
            text,
            barred,
            symbols,
            queue: BinaryHeap::new(),
        })
    }

    fn run(&mut self) {
        for right in 1..self.symbols.len() as u32 {
            self.consider(right - 1, right);
        }
        while let Some(Candidate {
            left, right, len, ..
        }) = self.queue.pop()
        {
            let left = left.0;
            let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
            // Either neighbour may have been joined to something else in the meantime.
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            self.symbols[right as usize].len = 0;
            let joined = &mut self.symbols[left as usize];
            joined.len = len;
            joined.next = r.next;
            if r.next != NONE {
                self.symbols[r.next as usize].prev = left;
            }
            self.consider(l.prev, left);
            self.consider(left, r.next);
        }
    }

    fn consider(&mut self, left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
        let len = l.len + r.len;
        if len as usize > self.spm.longest {
            return;
        }
        let text = &self.text[l.start as usize..(l.start + len) as usize];
        if let Some(piece) = self.spm.pieces.get(text)
            && !self.barred.contains(&piece.id)
        {
            self.queue.push(Candidate {
                score: OrderedScore::new(piece.score),
                left: Reverse(left),
                right,
                len,
            });
        }
    }

    fn text(&self, symbol: &Symbol) -> &'a str {
        &self.text[symbol.start as usize..(symbol.start + symbol.len) as usize]
    }
}
