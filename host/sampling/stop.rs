//! Texts that end a generation, found across the borders of tokens.

/// Watches a text for stop strings. What may be the beginning of one is held back.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What [`StopStrings::push`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Text that is certainly before any stop string.
    pub text: String,
    /// Whether a stop string followed it.
    pub stopped: bool,
}

impl StopStrings {
    /// Watches for `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> StopStrings {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned();
        StopStrings {
            stops: stops.collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Stopped {
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop)).min();
        if let Some(start) = first {
            self.held.truncate(start);
            let text = std::mem::take(&mut self.held);
            return Stopped { text, stopped: true };
        }
        let kept = self.held.split_off(self.held.len() - self.possible_start());
        let text = std::mem::replace(&mut self.held, kept);
        Stopped {
            text,
            stopped: false,
        }
    }

    /// What was held back, when nothing follows it.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn possible_start(&self) -> usize {
        let starts = self.held.char_indices().map(|(index, _)| index);
        let begins = |end: &str| self.stops.iter().any(|stop| stop.starts_with(end));
        let mut ends = starts.map(|index| &self.held[index..]);
        ends.find(|end| begins(end)).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        let mut stops = StopStrings::new(&["END".to_owned()]);
        let going_on = |text: &str| Stopped {
            text: text.to_owned(),
            stopped: false,
        };
        assert_eq!(stops.push("one E"), going_on("one "));
        assert_eq!(stops.push("N"), going_on(""));
        assert_eq!(stops.push("E"), going_on("EN"));
        assert_eq!(stops.push("ND two").text, "");
    }

    #[test]
    fn the_earliest_of_several_wins() {
        let mut stops = StopStrings::new(&["c".to_owned(), "bc".to_owned()]);
        let found = stops.push("abcd");
        assert_eq!((found.text.as_str(), found.stopped), ("a", true));
    }

    proptest! {
        /// However the text is cut into pieces, what comes out is the text before the first stop.
        #[test]
        fn pieces_do_not_matter(
            text in "[abé]{0,40}",
            stop in "[abé]{1,4}",
            cuts in prop::collection::vec(0usize..40, 0..10),
        ) {
            let mut stops = StopStrings::new(std::slice::from_ref(&stop));
            let (mut out, mut stopped) = (String::new(), false);
            let mut rest = text.as_str();
            let mut lengths = cuts.iter().copied().chain([usize::MAX]);
            while !rest.is_empty() && !stopped {
                let wanted = lengths.next().unwrap_or(usize::MAX).min(rest.len());
                let length = (0..=wanted).rev().find(|&l| rest.is_char_boundary(l)).unwrap_or(0);
                let (piece, after) = rest.split_at(length);
                let found = stops.push(piece);
                out.push_str(&found.text);
                stopped = found.stopped;
                rest = after;
            }
            if !stopped {
                out.push_str(&stops.finish());
            }
            let expected = text.find(&stop).map_or(text.as_str(), |start| &text[..start]);
            prop_assert_eq!(out, expected);
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }
}
