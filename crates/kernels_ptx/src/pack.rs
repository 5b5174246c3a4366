//! An LZ4 block in fewer bytes than `lz4_flex` makes of it: each match is the longest of many, looked for at leisure.
//!
//! Format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

/// The format's shortest match, and how far back one may lie.
const SHORTEST: usize = 4;
const WINDOW: usize = 65_535;
/// The format's end: the last bytes are literals, and no match begins among some more.
const LAST_LITERALS: usize = 5;
const LAST_MATCH: usize = 12;
/// Earlier places that are tried for a match.
const TRIES: usize = 128;
const HASH_BITS: u32 = 17;

#[derive(Clone, Copy)]
struct Match {
    len: usize,
    distance: usize,
}

/// The block that unpacks to `text`.
pub fn pack(text: &[u8]) -> Vec<u8> {
    let mut places = Places::new(text);
    let mut out = Vec::with_capacity(text.len() / 4);
    let (mut at, mut literals) = (0, 0);
    while at + LAST_MATCH < text.len() {
        let Some(mut found) = places.longest(at, SHORTEST - 1) else {
            at += 1;
            continue;
        };
        // A longer match that begins later is worth the literals before it.
        while at + 1 + LAST_MATCH < text.len()
            && let Some(later) = places.longest(at + 1, found.len)
        {
            (found, at) = (later, at + 1);
        }
        put(&mut out, &text[literals..at], Some(found));
        at += found.len;
        literals = at;
    }
    put(&mut out, &text[literals..], None);
    out
}

/// Where each hash of four bytes was seen last, and from each place the one before it.
struct Places<'a> {
    text: &'a [u8],
    last: Vec<u32>,
    before: Vec<u32>,
    entered: usize,
}

impl Places<'_> {
    const NONE: u32 = u32::MAX;

    fn new(text: &[u8]) -> Places<'_> {
        Places {
            text,
            last: vec![Places::NONE; 1 << HASH_BITS],
            before: vec![Places::NONE; text.len()],
            entered: 0,
        }
    }

    fn hash(&self, at: usize) -> usize {
        let bytes: [u8; 4] = self.text[at..at + 4].try_into().expect("four bytes");
        (u32::from_le_bytes(bytes).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
    }

    /// The longest match for what begins at `at`, if it is longer than `len`.
    fn longest(&mut self, at: usize, len: usize) -> Option<Match> {
        while self.entered < at {
            let hash = self.hash(self.entered);
            self.before[self.entered] = self.last[hash];
            self.last[hash] = self.entered as u32;
            self.entered += 1;
        }
        let most = self.text.len() - LAST_LITERALS - at;
        let mut best = Match { len, distance: 0 };
        let mut place = self.last[self.hash(at)];
        for _ in 0..TRIES {
            if place == Places::NONE || at - place as usize > WINDOW || best.len >= most {
                break;
            }
            let from = place as usize;
            if self.text[from + best.len] == self.text[at + best.len] {
                let pairs = self.text[from..].iter().zip(&self.text[at..at + most]);
                let len = pairs.take_while(|(a, b)| a == b).count();
                if len > best.len {
                    best = Match {
                        len,
                        distance: at - from,
                    };
                }
            }
            place = self.before[from];
        }
        (best.distance > 0).then_some(best)
    }
}

/// A sequence: literals, and the match behind them.
fn put(out: &mut Vec<u8>, literals: &[u8], found: Option<Match>) {
    let token = out.len();
    out.push(0);
    let high = put_len(out, literals.len());
    out.extend(literals);
    let mut low = 0;
    if let Some(Match { len, distance }) = found {
        out.extend((distance as u16).to_le_bytes());
        low = put_len(out, len - SHORTEST);
    }
    out[token] = high << 4 | low;
}

/// Puts what of a length does not fit into half of a token; gives what goes there.
fn put_len(out: &mut Vec<u8>, len: usize) -> u8 {
    if len < 15 {
        return len as u8;
    }
    let rest = len - 15;
    out.extend(std::iter::repeat_n(255, rest / 255));
    out.push((rest % 255) as u8);
    15
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn unpacks(text: &[u8]) {
        let packed = super::pack(text);
        let unpacked = lz4_flex::block::decompress(&packed, text.len());
        assert_eq!(unpacked.expect("an LZ4 block"), text);
    }

    #[test]
    fn short_texts_and_long_runs_unpack() {
        for len in (0..40).chain([254, 255, 256, 270, 300, 1000]) {
            unpacks(&vec![7; len]);
            unpacks(&(0..len).map(|i| i as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn matches_reach_no_farther_than_the_format() {
        for gap in 65_520..65_545 {
            let noise = (0_u32..gap).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8);
            let text = b"a line of PTX".iter().copied().chain(noise);
            unpacks(&text.chain(*b"a line of PTX, again").collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn any_text_unpacks(text in prop::collection::vec(prop::collection::vec(0..4_u8, 0..80), 0..20)) {
            unpacks(&text.concat());
        }
    }
}
