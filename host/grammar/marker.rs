//! Finding a text in a stream of bytes.

use std::sync::Arc;

/// A text that changes the meaning of what follows it, such as what opens a call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    text: Arc<str>,
    is_at_start: bool,
}

impl Marker {
    /// The marker `text`, wherever it comes up. Markers are ASCII, so that they end and begin between characters.
    pub fn anywhere(text: &str) -> Marker {
        debug_assert!(text.is_ascii() && !text.is_empty());
        Marker {
            text: text.into(),
            is_at_start: false,
        }
    }

    /// The marker `text`, where nothing but white space is before it.
    pub fn at_start(text: &str) -> Marker {
        Marker {
            is_at_start: true,
            ..Marker::anywhere(text)
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A search for it in a text that begins.
    pub fn scan(&self) -> MarkerScan {
        MarkerScan {
            marker: self.clone(),
            matched: 0,
            can_be: true,
        }
    }
}

/// A search for a marker, byte by byte.
#[derive(Debug, Clone)]
pub struct MarkerScan {
    marker: Marker,
    /// Bytes at the end of the text so far with which the marker begins.
    matched: usize,
    /// Whether it can still come up.
    can_be: bool,
}

impl MarkerScan {
    /// Takes the next byte: whether the marker ends with it, in which case the search begins anew.
    pub fn push(&mut self, byte: u8) -> bool {
        if !self.can_be {
            return false;
        }
        let text = self.marker.text.as_bytes();
        if self.marker.is_at_start {
            let is_before = self.matched == 0 && byte.is_ascii_whitespace();
            match text.get(self.matched) {
                Some(&expected) if expected == byte => self.matched += 1,
                _ if is_before => {}
                _ => {
                    self.can_be = false;
                    self.matched = 0;
                }
            }
        } else {
            while self.matched > 0 && text.get(self.matched) != Some(&byte) {
                self.matched = border(&text[..self.matched]);
            }
            self.matched += usize::from(text.get(self.matched) == Some(&byte));
        }
        let is_found = self.matched == text.len();
        if is_found {
            self.matched = 0;
        }
        is_found
    }

    /// How many bytes at the end of the text may become the marker.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Whether the marker can still come up.
    pub fn can_be(&self) -> bool {
        self.can_be
    }

    /// What would complete it: what is left of the marker, for each beginning of it that the text ends with.
    pub fn rests(&self) -> Vec<&[u8]> {
        let text = self.marker.text.as_bytes();
        let mut rests = Vec::new();
        let mut matched = self.matched;
        while matched > 0 {
            rests.push(&text[matched..]);
            matched = match self.marker.is_at_start {
                true => 0,
                false => border(&text[..matched]),
            };
        }
        rests
    }

    /// The marker.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }
}

/// The length of the longest proper beginning of `text` that it ends with. Markers are short.
fn border(text: &[u8]) -> usize {
    let lengths = (1..text.len()).rev();
    let mut borders = lengths.filter(|&n| text[..n] == text[text.len() - n..]);
    borders.next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_marker_is_found_where_it_is(marker in "[ab`]{1,6}", text in "[ab`]{0,40}") {
            let mut scan = Marker::anywhere(&marker).scan();
            let mut from = 0;
            for (at, byte) in text.bytes().enumerate() {
                let is_found = scan.push(byte);
                let expected = text[from..=at].ends_with(&marker);
                prop_assert_eq!(is_found, expected, "{} in {:?} at {}", marker, text, at);
                if is_found {
                    from = at + 1;
                }
                let held = &text[at + 1 - scan.matched()..=at];
                prop_assert!(marker.starts_with(held));
                for rest in scan.rests() {
                    prop_assert!(marker.as_bytes().ends_with(rest));
                }
            }
        }
    }

    #[test]
    fn a_marker_at_the_start_has_white_space_before_it_alone() {
        let find = |text: &str| {
            let mut scan = Marker::at_start("{\"name\":").scan();
            text.bytes().position(|byte| scan.push(byte))
        };
        assert_eq!(find(" \n{\"name\": \"f\""), Some(9));
        assert_eq!(find("{ \"name\":"), None);
        assert_eq!(find("x{\"name\":"), None);
        assert_eq!(find("{{\"name\":"), None);
    }
}
