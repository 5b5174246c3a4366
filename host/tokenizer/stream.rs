//! Text from tokens that come one at a time.

use super::Tokenizer;

/// Collects the bytes of tokens and gives out the whole characters among them: a character is
/// often spread over several tokens, and half of one is not text.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    /// Control tokens that have a text.
    shown: Vec<u32>,
    pending: Vec<u8>,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: Tokenizer) -> StreamDecoder {
        StreamDecoder {
            tokenizer,
            shown: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// The same decoder, which gives the control tokens `shown` by their names.
    #[must_use]
    pub fn showing(self, shown: Vec<u32>) -> StreamDecoder {
        StreamDecoder { shown, ..self }
    }

    /// The text that became complete with `token`, possibly none. Control tokens have no text, unless they are shown.
    pub fn push(&mut self, token: u32) -> String {
        if !self.tokenizer.is_control(token) || self.shown.contains(&token) {
            self.pending.extend(self.tokenizer.token_bytes(token));
        }
        take_text(&mut self.pending)
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Removes and gives all of `pending` but a sequence at its end that may still become a
/// character. Bytes that cannot become one are U+FFFD.
fn take_text(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    loop {
        match std::str::from_utf8(&pending[taken..]) {
            Ok(rest) => {
                text.push_str(rest);
                taken = pending.len();
                break;
            }
            Err(error) => {
                let valid = taken + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[taken..valid]));
                taken = valid;
                let Some(invalid) = error.error_len() else {
                    break;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                taken += invalid;
            }
        }
    }
    pending.drain(..taken);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::take_text;

    proptest! {
        /// However the bytes are cut, the pieces are the lossy conversion of the whole.
        #[test]
        fn pieces_make_up_the_whole(
            chunks in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..5),
                    "\\PC{0,3}".prop_map(String::into_bytes),
                    "[é日🦙]".prop_map(|s| s.into_bytes()[..1].to_vec()),
                ],
                0..20,
            )
        ) {
            let mut pending = Vec::new();
            let mut text = String::new();
            for chunk in &chunks {
                pending.extend(chunk);
                text += &take_text(&mut pending);
                prop_assert!(pending.len() < 4);
            }
            text += &String::from_utf8_lossy(&pending);
            let whole = chunks.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
