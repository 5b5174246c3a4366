//! Template source to tokens, by the rules of jinja2's lexer with `trim_blocks` and
//! `lstrip_blocks`.

use super::error::{Error, Kind, Result};

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    /// An operator or bracket.
    Op(&'static str),
    End,
}

/// The longest first, so that the first that fits is meant.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";", "!",
];

/// The tokens of `source` with their lines.
pub fn tokenize(source: &str) -> Result<Vec<(Token, u32)>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer {
        source: &source,
        at: 0,
        line: 1,
        counted: 0,
        line_starting: true,
        tokens: Vec::new(),
    };
    lexer.run()?;
    let line = lexer.line;
    let mut tokens = lexer.tokens;
    tokens.push((Token::End, line));
    Ok(tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    /// The line of byte `counted`.
    line: u32,
    counted: usize,
    /// What was read last ended a line.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn emit(&mut self, token: Token) {
        let line = self.line();
        self.tokens.push((token, line));
    }

    /// The line of the current place.
    fn line(&mut self) -> u32 {
        let passed = &self.source.as_bytes()[self.counted..self.at];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count() as u32;
        self.counted = self.at;
        self.line
    }

    fn error(&mut self, message: impl Into<String>) -> Error {
        Error {
            kind: Kind::Syntax,
            message: message.into(),
            line: Some(self.line()),
        }
    }

    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let open = rest
                .match_indices('{')
                .map(|(at, _)| at)
                .find(|&at| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
            let Some(open) = open else {
                self.data(rest);
                self.at = self.source.len();
                break;
            };
            let kind = rest.as_bytes()[open + 1];
            let sign = rest.as_bytes().get(open + 2).copied();
            let text = &rest[..open];
            let kept = match sign {
                Some(b'-') => text.trim_end(),
                // No line is stripped before a variable.
                Some(b'+') => text,
                _ if kind != b'{' => self.without_indentation(text),
                _ => text,
            };
            self.data(kept);
            self.at += open + 2 + usize::from(matches!(sign, Some(b'-' | b'+')));
            match kind {
                b'#' => self.comment()?,
                b'{' => {
                    self.emit(Token::VariableBegin);
                    self.expression("}}", Token::VariableEnd)?;
                }
                _ if self.raw_begins() => self.raw()?,
                _ => {
                    self.emit(Token::BlockBegin);
                    self.expression("%}", Token::BlockEnd)?;
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.emit(Token::Data(text.to_owned()));
        }
    }

    /// `text` without the spaces after its last line end, where nothing else follows it.
    fn without_indentation<'t>(&self, text: &'t str) -> &'t str {
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        let blank = text[start..].chars().all(char::is_whitespace);
        match blank && (start > 0 || self.line_starting) {
            true => &text[..start],
            false => text,
        }
    }

    /// Skips what closes a tag at the current place (`end`, with its sign), and the white space that
    /// goes with it. Gives whether something does.
    fn close(&mut self, end: &str, trims_line: bool) -> bool {
        let rest = self.rest();
        let before = self.at;
        if let Some(after) = rest
            .strip_prefix('-')
            .and_then(|rest| rest.strip_prefix(end))
        {
            self.at = self.source.len() - after.trim_start().len();
        } else if let Some(after) = rest
            .strip_prefix('+')
            .and_then(|rest| rest.strip_prefix(end))
            && trims_line
        {
            self.at = self.source.len() - after.len();
        } else if let Some(after) = rest.strip_prefix(end) {
            let newline = trims_line && after.starts_with('\n');
            self.at = self.source.len() - after.len() + usize::from(newline);
        } else {
            return false;
        }
        self.line_starting = self.source[before..self.at].ends_with('\n');
        true
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else {
            return Err(self.error("a comment is not closed"));
        };
        let signed = self.rest()[..end].ends_with(['-', '+']);
        self.at += end - usize::from(signed);
        self.close("#}", true);
        Ok(())
    }

    fn raw_begins(&self) -> bool {
        let rest = self.rest().trim_start().strip_prefix("raw");
        let rest = rest.map(|rest| rest.trim_start());
        rest.is_some_and(|rest| rest.starts_with("%}") || rest.starts_with("-%}"))
    }

    fn raw(&mut self) -> Result<()> {
        let name = self.rest().find("raw").unwrap_or(0);
        self.at += name + "raw".len();
        self.at += self.rest().len() - self.rest().trim_start().len();
        self.close("%}", false);
        let rest = self.rest();
        let end = rest.match_indices("{%").map(|(at, _)| at).find_map(|at| {
            let tag = &rest[at + 2..];
            let name = tag.trim_start_matches(['-', '+']).trim_start();
            let after = name.strip_prefix("endraw")?.trim_start();
            let closes = ["%}", "-%}", "+%}"]
                .iter()
                .any(|end| after.starts_with(end));
            closes.then_some((at, tag.starts_with('-'), rest.len() - after.len()))
        });
        let Some((at, strips, close)) = end else {
            return Err(self.error("a raw block is not closed"));
        };
        let text = &rest[..at];
        let plus = rest[at + 2..].starts_with('+');
        let kept = match (strips, plus) {
            (true, _) => text.trim_end(),
            (_, true) => text,
            _ => self.without_indentation(text),
        };
        self.data(kept);
        self.at += close;
        self.close("%}", true);
        Ok(())
    }

    /// The tokens up to `end`, which does not count inside brackets.
    fn expression(&mut self, end: &str, token: Token) -> Result<()> {
        let mut brackets: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(self.error(format!("'{end}' is missing")));
            };
            if brackets.is_empty() && self.close(end, token == Token::BlockEnd) {
                self.emit(token);
                return Ok(());
            }
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else if first.is_alphabetic() || first == '_' {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &rest[..len.unwrap_or(rest.len())];
                self.emit(Token::Name(name.to_owned()));
                self.at += name.len();
            } else {
                let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
                    return Err(self.error(format!("unexpected character {first:?}")));
                };
                match *op {
                    "(" => brackets.push(")"),
                    "[" => brackets.push("]"),
                    "{" => brackets.push("}"),
                    ")" | "]" | "}" if brackets.pop() != Some(op) => {
                        return Err(self.error(format!("unexpected '{op}'")));
                    }
                    _ => {}
                }
                self.emit(Token::Op(op));
                self.at += op.len();
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let radix = match rest.get(..2) {
            Some("0x" | "0X") => 16,
            Some("0o" | "0O") => 8,
            Some("0b" | "0B") => 2,
            _ => 10,
        };
        let digits = |from: usize| {
            let more = rest[from..].find(|c: char| !c.is_digit(radix) && c != '_');
            more.map_or(rest.len(), |more| from + more)
        };
        let mut end = digits(if radix == 10 { 0 } else { 2 });
        let starts_digit = |at: usize| rest[at..].starts_with(|c: char| c.is_ascii_digit());
        let mut float = false;
        if radix == 10 {
            if rest[end..].starts_with('.') && starts_digit(end + 1) {
                float = true;
                end = digits(end + 1);
            }
            if rest[end..].starts_with(['e', 'E']) {
                let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
                if starts_digit(end + 1 + sign) {
                    float = true;
                    end = digits(end + 1 + sign);
                }
            }
        }
        let text = rest[..end].replace('_', "");
        let token = match (float, radix) {
            (true, _) => text.parse().ok().map(Token::Float),
            (false, 10) => text.parse().ok().map(Token::Int),
            _ => i64::from_str_radix(&text[2..], radix).ok().map(Token::Int),
        };
        let Some(token) = token else {
            return Err(self.error(format!("{text} is not a number that fits")));
        };
        self.emit(token);
        self.at += end;
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let mut chars = self.rest().char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.emit(Token::Str(text));
                    self.at += at + 1;
                    return Ok(());
                }
                '\\' => {
                    let Some((at, escape)) = chars.next() else {
                        break;
                    };
                    let after = &self.rest()[at + escape.len_utf8()..];
                    let used = unescape(escape, after, &mut text);
                    for _ in 0..used {
                        chars.next();
                    }
                }
                c => text.push(c),
            }
        }
        Err(self.error("a string is not closed"))
    }
}

/// Appends what the escape sequence of `escape` stands for, as in Python's strings. Gives how many
/// characters of `after` belong to it.
fn unescape(escape: char, after: &str, text: &mut String) -> usize {
    let code = |digits: usize, radix: u32| {
        let digits = after.get(..digits)?;
        let all = digits.chars().all(|c| c.is_digit(radix));
        let code = u32::from_str_radix(digits, radix).ok().filter(|_| all)?;
        char::from_u32(code)
    };
    let simple = match escape {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0C',
        'v' => '\x0B',
        '\\' | '\'' | '"' => escape,
        '\n' => return 0,
        'x' | 'u' | 'U' => {
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let Some(c) = code(digits, 16) else {
                text.extend(['\\', escape]);
                return 0;
            };
            text.push(c);
            return digits;
        }
        '0'..='7' => {
            let more = after
                .bytes()
                .take(2)
                .take_while(|b| (b'0'..=b'7').contains(b));
            let more = more.count();
            let code = u32::from_str_radix(&format!("{escape}{}", &after[..more]), 8);
            text.extend(code.ok().and_then(char::from_u32));
            return more;
        }
        other => {
            text.extend(['\\', other]);
            return 0;
        }
    };
    text.push(simple);
    0
}
