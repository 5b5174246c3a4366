//! The `tojson` filter as `transformers` defines it: the output of Python's `json.dumps`, down to
//! its spaces, because models were trained on that text.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Deeper values are refused rather than risk the stack.
const MAX_DEPTH: usize = 100;

/// `value | tojson(indent=None, separators=None, ensure_ascii=False, sort_keys=False)`.
pub(super) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<(String, String)> = options
        .get::<Option<Value>>("separators")?
        .map(|pair| -> Result<_, Error> {
            let part = |index| Ok::<_, Error>(pair.get_item_by_index(index)?.to_string());
            Ok((part(0)?, part(1)?))
        })
        .transpose()?;
    let between = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or((between.to_owned(), ": ".to_owned()));
    let mut writer = Writer {
        state,
        indent,
        item,
        key,
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        out: String::new(),
    };
    options.assert_all_used()?;
    writer.write(value, 0)?;
    Ok(writer.out)
}

struct Writer<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    indent: Option<usize>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
    out: String,
}

impl Writer<'_, '_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("tojson: the value is nested too deeply"));
        }
        // A list may hold itself many times over, so that its text is far longer than the value.
        let before = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.write_number(value)?,
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_container(['[', ']'], &items, depth, |writer, item| {
                    writer.write(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.write_container(['{', '}'], &keys, depth, |writer, key| {
                    writer.write_string(key.as_str().unwrap_or(&key.to_string()))?;
                    let separator = writer.key.clone();
                    writer.out.push_str(&separator);
                    writer.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => {
                return Err(invalid(format!(
                    "tojson: a value of type {kind} is not JSON"
                )));
            }
        }
        let written = self.out.len() - before;
        self.state.consume_fuel(1 + written as u64 / 64)
    }

    fn write_container(
        &mut self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        mut write_item: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                let separator = self.item.clone();
                self.out.push_str(&separator);
            }
            self.new_line(depth + 1)?;
            write_item(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = self.indent {
            let spaces = indent.saturating_mul(depth);
            self.state.consume_fuel(spaces as u64 / 64)?;
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', spaces));
        }
        Ok(())
    }

    fn write_number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
            return Ok(());
        }
        let number = f64::try_from(value.clone())?;
        let text = match number {
            n if n.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            n => format!("{n:?}"),
        };
        // Rust writes 1e16 and 1e-5 where Python writes 1e+16 and 1e-05.
        match text
            .split_once('e')
            .map(|(digits, power)| (digits, power.parse::<i32>()))
        {
            Some((digits, Ok(power))) => self.out.push_str(&format!("{digits}e{power:+03}")),
            _ => self.out.push_str(&text),
        }
        Ok(())
    }

    fn write_string(&mut self, text: &str) -> Result<(), Error> {
        let quoted = serde_json::to_string(text).map_err(|error| invalid(error.to_string()))?;
        if !self.ensure_ascii {
            self.out.push_str(&quoted);
            return Ok(());
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                self.out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}
