//! The `tojson` filter as `transformers` defines it: the output of Python's `json.dumps`, down to
//! its spaces, because models were trained on that text.

use super::arguments::bind;
use super::error::{Budget, Result, failed};
use super::interpreter::CallArgs;
use super::print::{float, to_text};
use super::text::{Source, Text};
use super::value::Value;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub fn tojson(value: &Value, args: CallArgs, budget: &Budget) -> Result<Value> {
    let args = bind(args, &["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match args.some(1) {
        None => None,
        Some(Value::Str(text)) => Some(text.as_str().to_owned()),
        Some(width) => {
            let width = width
                .as_int()
                .ok_or_else(|| failed("tojson: indent is no integer"))?;
            let width = usize::try_from(width).unwrap_or(0);
            budget.bytes(width)?;
            Some(" ".repeat(width))
        }
    };
    let mut separators = match indent {
        Some(_) => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    if let Some(pair) = args.some(2) {
        let pair = pair.elements(budget)?;
        for (separator, value) in separators.iter_mut().zip(&pair) {
            to_text(value, budget)?.as_str().clone_into(separator);
        }
    }
    let mut writer = Writer {
        budget,
        indent,
        separators,
        ensure_ascii: args.flag(0),
        sort_keys: args.flag(3),
        out: Text::default(),
    };
    writer.write(value, 0)?;
    Ok(Value::text(writer.out))
}

struct Writer<'b> {
    budget: &'b Budget,
    indent: Option<String>,
    /// Between elements, and between a key and its value.
    separators: [String; 2],
    ensure_ascii: bool,
    sort_keys: bool,
    out: Text,
}

impl Writer<'_> {
    /// What is not from a string follows the shape of data, whose origin is not known.
    fn mark(&mut self, text: &str) {
        self.out.push_str(text, Source::Foreign);
    }

    fn write(&mut self, value: &Value, depth: usize) -> Result<()> {
        // A list may hold itself many times over, so that its text is far longer than the value.
        let before = self.out.len();
        match value {
            Value::None => self.mark("null"),
            Value::Bool(value) => self.mark(if *value { "true" } else { "false" }),
            Value::Int(number, source) => self.out.push_str(&number.to_string(), *source),
            Value::Float(number, source) => {
                let text = match float(*number).as_str() {
                    "nan" => "NaN".to_owned(),
                    "inf" => "Infinity".to_owned(),
                    "-inf" => "-Infinity".to_owned(),
                    text => text.to_owned(),
                };
                self.out.push_str(&text, *source);
            }
            Value::Str(text) => self.write_string(text),
            Value::List(list) if list.kind != super::value::ListKind::View => {
                self.write_container(["[", "]"], &list.items, depth, |writer, item| {
                    writer.write(item, depth + 1)
                })?;
            }
            Value::Dict(dict) => {
                let mut entries: Vec<_> = dict.entries.iter().collect();
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
                }
                self.write_container(["{", "}"], &entries, depth, |writer, (key, value)| {
                    match key {
                        Value::Str(key) => writer.write_string(key),
                        key => {
                            writer.mark("\"");
                            writer.write(key, depth + 1)?;
                            writer.mark("\"");
                        }
                    }
                    let separator = writer.separators[1].clone();
                    writer.mark(&separator);
                    writer.write(value, depth + 1)
                })?;
            }
            other => {
                return Err(failed(format!(
                    "Object of type {} is not JSON serializable",
                    other.type_name()
                )));
            }
        }
        self.budget.bytes(self.out.len() - before)
    }

    fn write_container<T>(
        &mut self,
        [open, close]: [&str; 2],
        items: &[T],
        depth: usize,
        mut write_item: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.mark(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                let separator = self.separators[0].clone();
                self.mark(&separator);
            }
            self.new_line(depth + 1)?;
            write_item(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth)?;
        }
        self.mark(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<()> {
        if let Some(indent) = &self.indent {
            self.budget.bytes(indent.len().saturating_mul(depth))?;
            let line = format!("\n{}", indent.repeat(depth));
            self.mark(&line);
        }
        Ok(())
    }

    fn write_string(&mut self, text: &Text) {
        self.mark("\"");
        for (c, source) in text.chars() {
            match c {
                '"' => self.out.push_str("\\\"", source),
                '\\' => self.out.push_str("\\\\", source),
                '\n' => self.out.push_str("\\n", source),
                '\r' => self.out.push_str("\\r", source),
                '\t' => self.out.push_str("\\t", source),
                '\x08' => self.out.push_str("\\b", source),
                '\x0C' => self.out.push_str("\\f", source),
                c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"), source);
                    }
                }
                c => self.out.push(c, source),
            }
        }
        self.mark("\"");
    }
}
