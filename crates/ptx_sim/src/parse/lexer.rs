//! Splits PTX text into tokens with their positions.

use crate::error::{ParseError, ParseErrorKind, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name: `ld`, `%r1`, `$L__BB0_1`.
    Ident(&'a str),
    /// A dotted word without its dot: `global`, `L1::no_allocate`, `m16n8k16`.
    Dotted(&'a str),
    /// An integer literal: its two's complement bits.
    Int(u64),
    /// A `0f` literal: the bits of the single.
    F32(u32),
    /// A `0d` or decimal literal.
    F64(f64),
    Str(&'a str),
    Punct(u8),
    End,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spanned<'a> {
    pub token: Token<'a>,
    pub text: &'a str,
    pub start: usize,
    pub line: u32,
    pub column: u32,
    /// Whether white space or a comment separates the token from the one before.
    pub spaced: bool,
}

pub(crate) fn error(at: &Spanned, kind: ParseErrorKind) -> ParseError {
    let token = if at.token == Token::End {
        "end of text"
    } else {
        at.text
    };
    ParseError {
        line: at.line,
        column: at.column,
        token: token.to_owned(),
        kind,
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
}

pub(crate) fn tokenize(text: &str) -> Result<Vec<Spanned<'_>>> {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        tokens.push(token);
        if token.token == Token::End {
            return Ok(tokens);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn newline(&mut self) {
        self.line += 1;
        self.line_start = self.at + 1;
    }

    fn skip_blank(&mut self) {
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'\n', _) => {
                    self.newline();
                    self.at += 1;
                }
                (byte, _) if byte.is_ascii_whitespace() => self.at += 1,
                (b'/', b'/') => {
                    while self.at < self.text.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => {
                    self.at += 2;
                    while self.at < self.text.len() && (self.peek(0), self.peek(1)) != (b'*', b'/')
                    {
                        if self.peek(0) == b'\n' {
                            self.newline();
                        }
                        self.at += 1;
                    }
                    self.at = (self.at + 2).min(self.text.len());
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) {
        while is_word(self.peek(0)) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<Spanned<'a>> {
        let before = self.at;
        self.skip_blank();
        let start = self.at;
        let mut spanned = Spanned {
            token: Token::End,
            text: "",
            start,
            line: self.line,
            column: u32::try_from(start - self.line_start)
                .unwrap_or(u32::MAX)
                .saturating_add(1),
            spaced: start != before,
        };
        if start >= self.text.len() {
            return Ok(spanned);
        }
        let byte = self.peek(0);
        let token = match byte {
            b'.' if is_word(self.peek(1)) => {
                self.at += 1;
                self.word();
                while self.peek(0) == b':' && self.peek(1) == b':' && is_word(self.peek(2)) {
                    self.at += 2;
                    self.word();
                }
                Token::Dotted(&self.text[start + 1..self.at])
            }
            b'0'..=b'9' => self.number()?,
            b'%' | b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.at += 1;
                self.word();
                Token::Ident(&self.text[start..self.at])
            }
            b'"' => {
                self.at += 1;
                while self.at < self.text.len() && self.peek(0) != b'"' {
                    if self.peek(0) == b'\n' {
                        self.newline();
                    }
                    self.at += 1;
                }
                if self.at >= self.text.len() {
                    return Err(error(
                        &spanned,
                        ParseErrorKind::Expected("closing `\"`".into()),
                    ));
                }
                self.at += 1;
                Token::Str(&self.text[start + 1..self.at - 1])
            }
            _ => {
                let length = self.text[start..].chars().next().map_or(1, char::len_utf8);
                self.at += length;
                spanned.text = &self.text[start..self.at];
                if !b"{}()[],;:@!|+-=<>".contains(&byte) {
                    return Err(error(
                        &spanned,
                        ParseErrorKind::Expected("a PTX token".into()),
                    ));
                }
                Token::Punct(byte)
            }
        };
        spanned.token = token;
        spanned.text = &self.text[start..self.at];
        Ok(spanned)
    }

    fn number(&mut self) -> Result<Token<'a>> {
        let start = self.at;
        let column = u32::try_from(start - self.line_start)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        self.word();
        let decimal_point = self.peek(0) == b'.' && self.peek(1).is_ascii_digit();
        if decimal_point {
            self.at += 1;
            self.word();
        }
        let exponent_sign = matches!(self.peek(0), b'+' | b'-')
            && matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E')
            && !self.text[start..].starts_with("0x")
            && !self.text[start..].starts_with("0f")
            && !self.text[start..].starts_with("0d")
            && !self.text[start..].starts_with("0F")
            && !self.text[start..].starts_with("0D");
        if exponent_sign {
            self.at += 1;
            self.word();
        }
        let text = &self.text[start..self.at];
        parse_number(text).ok_or_else(|| ParseError {
            line: self.line,
            column,
            token: text.to_owned(),
            kind: ParseErrorKind::Expected("a number".into()),
        })
    }
}

fn parse_number(text: &str) -> Option<Token<'static>> {
    if let Some(hex) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Token::F32))?;
    }
    if let Some(hex) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        let bits = (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())??;
        return Some(Token::F64(f64::from_bits(bits)));
    }
    let unsuffixed = text.strip_suffix('U').unwrap_or(text);
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Token::Int);
    if let Some(hex) = unsuffixed
        .strip_prefix("0x")
        .or(unsuffixed.strip_prefix("0X"))
    {
        return radix(hex, 16);
    }
    if let Some(binary) = unsuffixed
        .strip_prefix("0b")
        .or(unsuffixed.strip_prefix("0B"))
    {
        return radix(binary, 2);
    }
    if text.contains(['.', 'e', 'E']) {
        return text.parse().ok().map(Token::F64);
    }
    if unsuffixed.len() > 1 && unsuffixed.starts_with('0') {
        return radix(&unsuffixed[1..], 8);
    }
    radix(unsuffixed, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        tokenize(text)
            .unwrap()
            .into_iter()
            .map(|spanned| spanned.token)
            .collect()
    }

    #[test]
    fn literals_have_their_bits() {
        assert_eq!(
            tokens("0x123U 017 0b101 42 0f3F800000 0d3FF0000000000000 1.5e-3 18446744073709551615"),
            [
                Token::Int(0x123),
                Token::Int(15),
                Token::Int(5),
                Token::Int(42),
                Token::F32(0x3f80_0000),
                Token::F64(1.0),
                Token::F64(1.5e-3),
                Token::Int(u64::MAX),
                Token::End
            ]
        );
    }

    #[test]
    fn positions_count_lines_inside_comments() {
        let spanned = tokenize("/* a\n b */ // c\n  ld.global").unwrap();
        assert_eq!((spanned[0].line, spanned[0].column), (3, 3));
        assert_eq!(spanned[1].token, Token::Dotted("global"));
        assert!(!spanned[1].spaced);
    }

    #[test]
    fn foreign_characters_are_errors() {
        assert!(tokenize("ld é").is_err());
        assert!(tokenize("0f12").is_err());
        assert!(tokenize("\"open").is_err());
        assert!(tokenize("99999999999999999999").is_err());
    }
}
