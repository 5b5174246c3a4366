//! Text that remembers, for each character, who wrote it.

use std::ops::Range;

/// Who wrote a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The template, or the program on its behalf: the only text that may be markup.
    Template,
    /// A role, a name, a tool's result, a variable: anything of unknown origin.
    Foreign,
    /// The content of the message with this index.
    Content(u32),
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: usize,
    source: Source,
}

/// A string whose characters carry their [`Source`], kept as runs of equal ones. Every operation
/// of the interpreter builds new texts from slices of old ones, so that no character ever loses it.
#[derive(Clone, Debug, Default)]
pub struct Text {
    text: String,
    runs: Vec<Run>,
    /// Python's `Markup`: what is added to it by `+` is escaped for HTML.
    pub safe: bool,
}

impl Text {
    /// `text`, all written by `source`.
    pub fn new(text: &str, source: Source) -> Text {
        let mut new = Text::default();
        new.push_str(text, source);
        new
    }

    /// An empty text that is as safe as this one.
    pub fn like(&self) -> Text {
        Text {
            safe: self.safe,
            ..Text::default()
        }
    }

    /// The characters alone.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is no character.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends what `source` wrote.
    pub fn push_str(&mut self, text: &str, source: Source) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.runs.last_mut() {
            Some(last) if last.source == source => last.end = end,
            _ => self.runs.push(Run { end, source }),
        }
    }

    /// Appends a character.
    pub fn push(&mut self, c: char, source: Source) {
        self.push_str(c.encode_utf8(&mut [0; 4]), source);
    }

    /// Appends another text.
    pub fn push_text(&mut self, other: &Text) {
        self.push_slice(other, 0..other.len());
    }

    /// Appends the bytes `range` of another text.
    pub fn push_slice(&mut self, other: &Text, range: Range<usize>) {
        let mut at = range.start;
        let mut run = other.runs.partition_point(|run| run.end <= at);
        while at < range.end {
            let Run { end, source } = other.runs[run];
            let end = end.min(range.end);
            self.push_str(&other.text[at..end], source);
            at = end;
            run += 1;
        }
    }

    /// The bytes `range`.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let mut slice = self.like();
        slice.push_slice(self, range);
        slice
    }

    /// The stretches of one source, in order.
    pub fn runs(&self) -> impl Iterator<Item = (Range<usize>, Source)> {
        let mut start = 0;
        self.runs.iter().map(move |run| {
            let range = start..run.end;
            start = run.end;
            (range, run.source)
        })
    }

    /// The characters with their sources.
    pub fn chars(&self) -> impl Iterator<Item = (char, Source)> {
        self.runs().flat_map(|(range, source)| {
            let chars = self.text[range].chars();
            chars.map(move |c| (c, source))
        })
    }

    /// The source of what a change of the whole text adds: foreign where any of it is.
    pub fn whole_source(&self) -> Source {
        match self.runs.iter().all(|run| run.source == Source::Template) {
            true => Source::Template,
            false => Source::Foreign,
        }
    }

    /// Each character replaced by those that `map` gives, which keep its source.
    pub fn map_chars<I: IntoIterator<Item = char>>(&self, map: impl Fn(char) -> I) -> Text {
        let mut mapped = self.like();
        for (c, source) in self.chars() {
            map(c).into_iter().for_each(|c| mapped.push(c, source));
        }
        mapped
    }

    /// Without the characters that `cut` names, at the start and the end as asked.
    pub fn trim(&self, cut: impl Fn(char) -> bool, start: bool, end: bool) -> Text {
        let mut range = 0..self.len();
        if start {
            range.start = self.len() - self.text.trim_start_matches(&cut).len();
        }
        if end {
            range.end = range.start + self.text[range.start..].trim_end_matches(&cut).len();
        }
        self.slice(range)
    }

    /// The byte offset of the character `index`, or the end.
    pub fn offset(&self, index: usize) -> usize {
        let mut offsets = self.text.char_indices();
        offsets.nth(index).map_or(self.len(), |(offset, _)| offset)
    }

    /// The number of characters.
    pub fn count(&self) -> usize {
        self.text.chars().count()
    }

    /// With `<`, `>`, `&` and quotes spelled for HTML, as Python's `markupsafe` does.
    pub fn escaped(&self) -> Text {
        if self.safe {
            return self.clone();
        }
        let mut escaped = Text {
            safe: true,
            ..Text::default()
        };
        for (c, source) in self.chars() {
            match c {
                '&' => escaped.push_str("&amp;", source),
                '<' => escaped.push_str("&lt;", source),
                '>' => escaped.push_str("&gt;", source),
                '\'' => escaped.push_str("&#39;", source),
                '"' => escaped.push_str("&#34;", source),
                c => escaped.push(c, source),
            }
        }
        escaped
    }
}

/// What Python's `str.isspace` holds for space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_their_sources() {
        let mut text = Text::new("ab", Source::Template);
        text.push_str("cé", Source::Foreign);
        text.push_str("d", Source::Template);
        let slice = text.slice(1..5);
        let chars: Vec<_> = slice.chars().collect();
        assert_eq!(
            chars,
            [
                ('b', Source::Template),
                ('c', Source::Foreign),
                ('é', Source::Foreign)
            ]
        );
        assert_eq!(text.slice(5..5).runs().count(), 0);
        let upper = text.map_chars(char::to_uppercase);
        assert_eq!(upper.as_str(), "ABCÉD");
        assert_eq!(upper.runs().count(), 3);
    }
}
