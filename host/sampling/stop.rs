//! Texts that end a generation, found across the borders of tokens.

/// Watches a text for stop strings. What may be the beginning of one is held back.
///
/// Of several, the one that is complete first ends the text, and of those that end together the
/// longest: the only rule whose outcome does not depend on how the text is cut into pieces.
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
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop)?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = matches.min() {
            self.held.truncate(start);
            let text = std::mem::take(&mut self.held);
            return Stopped {
                text,
                stopped: true,
            };
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
    fn the_first_to_end_wins_and_then_the_longest() {
        for (stops, text) in [
            (["c", "bc"], "a"),
            (["abcd", "bc"], "a"),
            (["bc", "d"], "a"),
        ] {
            let mut stops = StopStrings::new(&stops.map(str::to_owned));
            let found = stops.push("abcd");
            assert_eq!((found.text.as_str(), found.stopped), (text, true));
        }
    }

    proptest! {
        /// However the text is cut, what comes out is the same, and is before all stop strings.
        #[test]
        fn pieces_do_not_matter(
            text in "[abé]{0,30}",
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let run = |pieces: &[&str]| {
                let mut watch = StopStrings::new(&stops);
                let mut out = String::new();
                for piece in pieces {
                    let found = watch.push(piece);
                    out.push_str(&found.text);
                    if found.stopped {
                        return (out, true);
                    }
                }
                out.push_str(&watch.finish());
                (out, false)
            };
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.retain(|&at| text.is_char_boundary(at));
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let (out, stopped) = run(&pieces);
            prop_assert_eq!(run(&[&text]), (out.clone(), stopped));

            let mut nonempty = stops.iter().filter(|stop| !stop.is_empty());
            prop_assert_eq!(stopped, nonempty.clone().any(|stop| text.contains(stop.as_str())));
            prop_assert!(!nonempty.any(|stop| out.contains(stop.as_str())));
            prop_assert!(text.starts_with(&out) && (stopped || out == text));
        }
    }
}
