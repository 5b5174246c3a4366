//! Figures as markdown, CSV or JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::Figures;
use super::table::{self, Align, cell, optional, quoted};
use crate::device::plan::Bytes;

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A markdown table.
    Md,
    /// Comma-separated values with a line of names.
    Csv,
    /// A JSON array.
    Json,
}

/// What all rows have in common.
#[derive(Debug, Clone, Serialize)]
pub struct Header {
    /// The model's name.
    pub model: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Elements of its tensors.
    pub parameters: u64,
    /// The backend.
    pub device: String,
    /// Bytes per second of a copy in the device's memory.
    pub copy_bandwidth: Option<f64>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    header: &'a Header,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// Writes all figures.
pub fn write(
    out: &mut impl Write,
    format: Format,
    header: &Header,
    rows: &[Figures],
) -> io::Result<()> {
    match format {
        Format::Md => markdown(out, header, rows),
        Format::Csv => csv(out, header, rows),
        Format::Json => {
            let rows: Vec<_> = rows.iter().map(|figures| Row { header, figures }).collect();
            serde_json::to_writer_pretty(&mut *out, &rows)?;
            writeln!(out)
        }
    }
}

fn markdown(out: &mut impl Write, header: &Header, rows: &[Figures]) -> io::Result<()> {
    use Align::{Left, Right};
    let titles = [
        ("model", Left),
        ("size", Right),
        ("params", Right),
        ("device", Left),
        ("test", Left),
        ("t/s", Right),
        ("median", Right),
        ("GB/s", Right),
        ("of copy", Right),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                cell(&header.model),
                Bytes(header.bytes).to_string(),
                match header.parameters {
                    n if n >= 1_000_000_000 => format!("{:.2} B", n as f64 / 1e9),
                    n => format!("{:.2} M", n as f64 / 1e6),
                },
                cell(&header.device),
                row.test.clone(),
                format!("{:.2} ± {:.2}", row.mean, row.deviation),
                format!("{:.2}", row.median),
                row.gb_per_second
                    .map_or(String::new(), |gb| format!("{gb:.1}")),
                row.share
                    .map_or(String::new(), |share| format!("{:.1} %", 100.0 * share)),
            ]
        })
        .collect();
    table::markdown(out, titles, &rows)
}

fn csv(out: &mut impl Write, header: &Header, rows: &[Figures]) -> io::Result<()> {
    writeln!(
        out,
        "model,bytes,parameters,device,test,batch,depth,mean,deviation,median,gb_per_second,share"
    )?;
    for row in rows {
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&header.model),
            header.bytes,
            header.parameters,
            quoted(&header.device),
            quoted(&row.test),
            row.batch,
            row.depth,
            row.mean,
            row.deviation,
            row.median,
            optional(row.gb_per_second),
            optional(row.share)
        )?;
    }
    Ok(())
}
