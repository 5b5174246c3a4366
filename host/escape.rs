//! Making visible what a terminal would obey.
//!
//! Names, keys and messages from files and servers may hold control sequences that move the cursor,
//! rewrite what was printed, or type commands. Whatever is printed of them goes through here.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` on one line: control characters, line separators and characters that turn the direction of
/// writing become `\n`, `\x1b` or `\u{202e}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, is_deceptive)
}

/// `text` of several lines: as [`escape`], but newlines and tabs stay.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    replace(text, |c| is_deceptive(c) && !matches!(c, '\n' | '\t'))
}

/// Text that a model wrote, for a terminal: control characters become visible, newlines and tabs
/// stay. Marks of direction stay too, since languages need them.
pub fn escape_generated(text: &str) -> Cow<'_, str> {
    replace(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || c == '\u{feff}'
}

fn replace(text: &str, unwanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unwanted) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !unwanted(c) => out.push(c),
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if c.is_ascii() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_visible() {
        assert_eq!(escape("m-Q4_K_M.gguf"), "m-Q4_K_M.gguf");
        assert!(matches!(escape("größe 你好 🙂"), Cow::Borrowed(_)));
        assert_eq!(escape("a\x1b[2J\r\nb\0\x7f"), "a\\x1b[2J\\r\\nb\\x00\\x7f");
        assert_eq!(escape("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(escape_lines("a\n\tb\x1b\r"), "a\n\tb\\x1b\\r");
        assert_eq!(
            escape_generated("a\n\tb\x1b]0;x\x07"),
            "a\n\tb\\x1b]0;x\\x07"
        );
        assert_eq!(escape_generated("\u{200f}א"), "\u{200f}א");
    }
}
