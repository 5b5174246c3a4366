//! Numbers, and Python's two ways to format: `'%s' % x` and `'{}'.format(x)`.

use super::ast::BinaryOp;
use super::error::{Budget, Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::print::{float, repr, to_text};
use super::text::{Source, Text};
use super::value::{ListKind, Value};

/// `left op right` of numbers.
pub fn arithmetic(op: BinaryOp, left: &Value, right: &Value) -> Result<Value> {
    let source = match (left.source(), right.source()) {
        (Source::Template, Source::Template) => Source::Template,
        _ => Source::Foreign,
    };
    let unsupported = || {
        let (left, right) = (left.type_name(), right.type_name());
        failed(format!(
            "unsupported operand types for {op:?}: '{left}' and '{right}'"
        ))
    };
    let by_zero = || failed("division by zero");
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int())
        && !(op == BinaryOp::Pow && b < 0)
        && op != BinaryOp::Div
    {
        let number = match op {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Sub => a.checked_sub(b),
            BinaryOp::Mul => a.checked_mul(b),
            BinaryOp::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            _ if b == 0 => return Err(by_zero()),
            BinaryOp::Mod => a.checked_rem(b).map(|r| {
                if r != 0 && (r < 0) != (b < 0) {
                    r + b
                } else {
                    r
                }
            }),
            _ => a
                .checked_div(b)
                .map(|q| q - i64::from(a % b != 0 && (a < 0) != (b < 0))),
        };
        let number = number.ok_or_else(|| failed("a number is too large"))?;
        return Ok(Value::Int(number, source));
    }
    let a = left.as_f64().ok_or_else(unsupported)?;
    let b = right.as_f64().ok_or_else(unsupported)?;
    let number = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Pow => a.powf(b),
        _ if b == 0.0 => return Err(by_zero()),
        BinaryOp::Div => a / b,
        BinaryOp::FloorDiv => (a / b).floor(),
        BinaryOp::Mod => a - b * (a / b).floor(),
    };
    Ok(Value::Float(number, source))
}

/// How a value is to be laid out.
#[derive(Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    /// '+' or ' '
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    kind: Option<char>,
    /// The format came from elsewhere than the template, and so do the signs that it asks for.
    foreign: bool,
}

/// `'...' % args`
pub fn percent(format: &Text, args: &Value, budget: &Budget) -> Result<Text> {
    budget.bytes(format.len())?;
    let mut values = match args {
        Value::List(list) if list.kind == ListKind::Tuple => list.items.clone(),
        other => vec![other.clone()],
    }
    .into_iter();
    let mut named = false;
    let mut out = Text::default();
    let mut chars = format.chars().peekable();
    while let Some((c, source)) = chars.next() {
        if c != '%' {
            out.push(c, source);
            continue;
        }
        let mut value = None;
        if chars.next_if(|(c, _)| *c == '(').is_some() {
            let mut name = String::new();
            loop {
                match chars.next() {
                    Some((')', _)) => break,
                    Some((c, _)) => name.push(c),
                    None => return Err(failed("incomplete format key")),
                }
            }
            named = true;
            let Value::Dict(dict) = args else {
                return Err(failed("format requires a mapping"));
            };
            value = Some(
                dict.named(&name)
                    .cloned()
                    .ok_or_else(|| failed(format!("no key '{name}'")))?,
            );
        }
        let mut spec = Spec {
            foreign: format.whole_source() != Source::Template,
            ..Spec::default()
        };
        while let Some((flag, _)) = chars.next_if(|(c, _)| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        spec.width = count(&mut chars, &mut values)?.unwrap_or(0);
        if chars.next_if(|(c, _)| *c == '.').is_some() {
            spec.precision = Some(count(&mut chars, &mut values)?.unwrap_or(0));
        }
        let Some((kind, source)) = chars.next() else {
            return Err(failed("incomplete format"));
        };
        if kind == '%' {
            out.push('%', source);
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => values
                .next()
                .ok_or_else(|| failed("not enough arguments for format string"))?,
        };
        // Python's % puts all to the right.
        spec.align = spec
            .align
            .or(Some(if spec.zero && kind != 's' { '=' } else { '>' }));
        let value = match kind {
            's' => Value::text(to_text(&value, budget)?),
            'r' | 'a' => Value::text(repr(&value, budget)?),
            'c' => match value.as_int() {
                Some(code) => {
                    let c = u32::try_from(code).ok().and_then(char::from_u32);
                    let c = c.ok_or_else(|| failed("%c wants a character"))?;
                    Value::text(Text::new(c.encode_utf8(&mut [0; 4]), value.source()))
                }
                None => value,
            },
            'd' | 'i' | 'u' => match value.as_f64() {
                Some(number) => value.as_int().map_or_else(
                    || Value::Int(number as i64, value.source()),
                    |number| Value::Int(number, value.source()),
                ),
                None => return Err(failed(format!("%{kind} wants a number"))),
            },
            'x' | 'X' | 'o' if value.as_int().is_some() => value,
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' if value.as_f64().is_some() => value,
            other => return Err(failed(format!("unsupported format %{other}"))),
        };
        spec.kind = match kind {
            's' | 'r' | 'a' | 'c' => None,
            'i' | 'u' => Some('d'),
            other => Some(other),
        };
        lay_out(&value, &spec, &mut out, budget)?;
    }
    let unused = values.next().is_some() && !named && !matches!(args, Value::Dict(_));
    match unused {
        true => Err(failed(
            "not all arguments converted during string formatting",
        )),
        false => Ok(out),
    }
}

/// A width or precision: digits, or `*` for the next value.
fn count(
    chars: &mut std::iter::Peekable<impl Iterator<Item = (char, Source)>>,
    values: &mut std::vec::IntoIter<Value>,
) -> Result<Option<usize>> {
    if chars.next_if(|(c, _)| *c == '*').is_some() {
        let width = values.next().and_then(|value| value.as_int());
        let width = width.ok_or_else(|| failed("* wants an integer"))?;
        return Ok(Some(usize::try_from(width).unwrap_or(0)));
    }
    let digits = std::iter::from_fn(|| chars.next_if(|(c, _)| c.is_ascii_digit()));
    match digits.map(|(digit, _)| digit).collect::<String>().as_str() {
        "" => Ok(None),
        digits => digits
            .parse()
            .map(Some)
            .map_err(|_| failed("a width is too large")),
    }
}

/// `'...'.format(...)`
pub fn braces(this: &mut Interpreter, format: &Text, args: &CallArgs) -> Result<Text> {
    let budget = this.budget;
    budget.bytes(format.len())?;
    let mut out = Text::default();
    // The next index, while fields are not numbered.
    let mut next = Some(0);
    let mut chars = format.chars().peekable();
    while let Some((c, source)) = chars.next() {
        match c {
            '{' | '}' if chars.next_if(|(next, _)| *next == c).is_some() => out.push(c, source),
            '}' => return Err(failed("Single '}' encountered in format string")),
            '{' => {
                let mut field = String::new();
                loop {
                    match chars.next() {
                        Some(('}', _)) => break,
                        Some(('{', _)) => return Err(failed("nested formats are not supported")),
                        Some((c, _)) => field.push(c),
                        None => return Err(failed("expected '}' before end of string")),
                    }
                }
                let (name, spec) = field.split_once(':').unwrap_or((&field, ""));
                let (name, conversion) = name.split_once('!').unwrap_or((name, ""));
                let value = field_value(this, name, args, &mut next)?;
                let value = match conversion {
                    "" => value,
                    "s" => Value::text(to_text(&value, budget)?),
                    "r" | "a" => Value::text(repr(&value, budget)?),
                    _ => return Err(failed("unknown conversion")),
                };
                let spec = Spec {
                    foreign: format.whole_source() != Source::Template,
                    ..parse_spec(spec)?
                };
                lay_out(&value, &spec, &mut out, budget)?;
            }
            c => out.push(c, source),
        }
    }
    Ok(out)
}

fn field_value(
    this: &mut Interpreter,
    name: &str,
    args: &CallArgs,
    next: &mut Option<usize>,
) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let index = match (first, &next) {
        ("", Some(index)) => Some(*index),
        ("", None) => return Err(failed("fields with and without numbers are mixed")),
        (digits, _) => digits.parse::<usize>().ok(),
    };
    if first.is_empty() {
        *next = index.map(|index| index + 1);
    } else if index.is_some() {
        if next.is_some_and(|next| next > 0) {
            return Err(failed("fields with and without numbers are mixed"));
        }
        *next = None;
    }
    let value = match index {
        Some(index) => args.positional.get(index).cloned(),
        None => args
            .named
            .iter()
            .find(|(name, _)| name == first)
            .map(|(_, value)| value.clone()),
    };
    let mut value = value.ok_or_else(|| failed(format!("there is nothing for '{{{name}}}'")))?;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (key, after) = after.split_once(']').ok_or_else(|| failed("missing ']'"))?;
            let key = match key.parse::<i64>() {
                Ok(index) => Value::Int(index, Source::Template),
                Err(_) => Value::str(key),
            };
            value = this.item(&value, &key)?;
            rest = after;
        } else {
            let after = rest
                .strip_prefix('.')
                .ok_or_else(|| failed("'.' was expected"))?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = this.attribute(&value, &after[..end])?;
            rest = &after[end..];
        }
    }
    Ok(value)
}

fn parse_spec(text: &str) -> Result<Spec> {
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let mut ahead = text.chars();
    let (first, second) = (ahead.next(), ahead.next());
    let is_align = |c: Option<char>| c.is_some_and(|c| "<>=^".contains(c));
    if is_align(second) {
        spec.fill = first;
        spec.align = second;
        chars.next();
        chars.next();
    } else if is_align(first) {
        spec.align = first;
        chars.next();
    }
    spec.sign = chars.next_if(|c| "+- ".contains(*c)).filter(|c| *c != '-');
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    let number = |chars: &mut std::iter::Peekable<std::str::Chars>| {
        let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
        match digits.as_str() {
            "" => Ok(None),
            digits => digits
                .parse()
                .map(Some)
                .map_err(|_| failed("a width is too large")),
        }
    };
    spec.width = number(&mut chars)?.unwrap_or(0);
    spec.comma = chars.next_if_eq(&',').is_some();
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = number(&mut chars)?;
    }
    spec.kind = chars.next();
    match chars.next() {
        Some(_) => Err(failed(format!("invalid format specifier '{text}'"))),
        None => Ok(spec),
    }
}

fn lay_out(value: &Value, spec: &Spec, out: &mut Text, budget: &Budget) -> Result<()> {
    let limit = spec.width.max(spec.precision.unwrap_or(0));
    budget.bytes(limit)?;
    if limit > 1 << 20 {
        return Err(failed("a width or precision is too large"));
    }
    let kind = spec.kind;
    let numeric = matches!(value, Value::Int(..) | Value::Float(..))
        || (kind.is_some() && value.as_int().is_some());
    if !numeric {
        if kind.is_some_and(|kind| kind != 's') {
            let name = value.type_name();
            return Err(failed(format!("unknown format code for '{name}'")));
        }
        let mut text = to_text(value, budget)?;
        if let Some(precision) = spec.precision {
            text = text.slice(0..text.offset(precision));
        }
        return pad(&text, "", spec, spec.align.unwrap_or('<'), out);
    }
    let source = match spec.foreign {
        true => Source::Foreign,
        false => value.source(),
    };
    let number = value.as_f64().unwrap_or(0.0);
    let negative = number < 0.0;
    let precision = spec.precision.unwrap_or(6);
    let digits = match (kind, value.as_int()) {
        (None | Some('d' | 'n'), Some(number)) => number.unsigned_abs().to_string(),
        (Some('x'), Some(number)) => format!("{:x}", number.unsigned_abs()),
        (Some('X'), Some(number)) => format!("{:X}", number.unsigned_abs()),
        (Some('o'), Some(number)) => format!("{:o}", number.unsigned_abs()),
        (Some('b'), Some(number)) => format!("{:b}", number.unsigned_abs()),
        (Some('f' | 'F'), _) => format!("{:.precision$}", number.abs()),
        (Some('%'), _) => format!("{:.precision$}%", number.abs() * 100.0),
        (Some('e' | 'E'), _) => exponent(number.abs(), precision, kind == Some('E')),
        (Some('g' | 'G'), _) => general(number.abs(), precision.max(1)),
        (None, _) => match spec.precision {
            Some(precision) => general(number.abs(), precision.max(1)),
            None => float(number.abs()),
        },
        _ => return Err(failed("unknown format code for a number")),
    };
    let digits = if spec.comma {
        with_commas(&digits)
    } else {
        digits
    };
    let prefix = match kind {
        Some('x') if spec.alternate => "0x",
        Some('X') if spec.alternate => "0X",
        Some('o') if spec.alternate => "0o",
        Some('b') if spec.alternate => "0b",
        _ => "",
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(_)) => " ",
        (false, None) => "",
    };
    let default = if spec.zero { '=' } else { '>' };
    let sign = format!("{sign}{prefix}");
    pad(
        &Text::new(&digits, source),
        &sign,
        spec,
        spec.align.unwrap_or(default),
        out,
    )
}

fn pad(text: &Text, sign: &str, spec: &Spec, align: char, out: &mut Text) -> Result<()> {
    let fill = spec
        .fill
        .unwrap_or(if spec.zero && align == '=' { '0' } else { ' ' });
    let missing = spec.width.saturating_sub(text.count() + sign.len());
    let (before, between, after) = match align {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    let source = match spec.foreign {
        true => Source::Foreign,
        false => text.whole_source(),
    };
    let spaces = |count: usize| String::from_iter(std::iter::repeat_n(fill, count));
    out.push_str(&spaces(before), source);
    out.push_str(sign, source);
    out.push_str(&spaces(between), source);
    out.push_text(text);
    out.push_str(&spaces(after), source);
    Ok(())
}

fn with_commas(digits: &str) -> String {
    let whole = digits.find('.').unwrap_or(digits.len());
    let mut out = String::new();
    for (index, digit) in digits[..whole].chars().enumerate() {
        if index > 0 && (whole - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &digits[whole..]
}

fn exponent(number: f64, precision: usize, upper: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let e = if upper { 'E' } else { 'e' };
    format!("{digits}{e}{power:+03}")
}

/// `%g`: `precision` digits, in the shorter of two forms, without zeros at the end.
fn general(number: f64, precision: usize) -> String {
    let text = exponent(number, precision - 1, false);
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if power < -4 || power >= precision as i32 {
        return format!("{}e{power:+03}", strip(digits));
    }
    let decimals = (precision as i32 - 1 - power).max(0) as usize;
    strip(&format!("{number:.decimals$}"))
}
