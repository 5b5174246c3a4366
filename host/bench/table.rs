//! A markdown table with aligned columns.

use std::io::{self, Write};

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text, to the left.
    Left,
    /// Numbers, to the right.
    Right,
}

/// Writes `rows` below `titles`, whose number they have.
pub fn markdown<const N: usize>(
    out: &mut impl Write,
    titles: [(&str, Align); N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.fold(titles[column].0.chars().count(), usize::max)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let names = titles.map(|(title, _)| title.to_owned());
    line(out, &titles, &widths, &names)?;
    for ((_, align), width) in titles.iter().zip(widths) {
        let dashes = "-".repeat(width + 1);
        match align {
            Align::Left => write!(out, "| {dashes}")?,
            Align::Right => write!(out, "|{dashes}:")?,
        }
    }
    writeln!(out, "|")?;
    rows.iter()
        .try_for_each(|row| line(out, &titles, &widths, row))
}

fn line<const N: usize>(
    out: &mut impl Write,
    titles: &[(&str, Align); N],
    widths: &[usize; N],
    cells: &[String; N],
) -> io::Result<()> {
    for ((cell, &width), (_, align)) in cells.iter().zip(widths).zip(titles) {
        match align {
            Align::Left => write!(out, "| {cell:<width$} ")?,
            Align::Right => write!(out, "| {cell:>width$} ")?,
        }
    }
    writeln!(out, "|")
}

/// Text for a cell.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Text for a CSV field.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A number for a CSV field that may be empty.
pub fn optional(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "10".to_owned()],
            ["µs|".to_owned(), "2".to_owned()],
        ];
        let rows = rows.map(|[name, number]| [cell(&name), number]);
        let mut out = Vec::new();
        let titles = [("name", Align::Left), ("n", Align::Right)];
        markdown(&mut out, titles, &rows).unwrap();
        let expected = "\
| name |  n |
| -----|---:|
| a    | 10 |
| µs\\| |  2 |
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
