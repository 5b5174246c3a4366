//! Profiles as markdown, CSV or JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::output::{Format, Header};
use super::profile::{KernelRow, Profile};
use super::table::{self, Align, cell, optional, quoted};

/// Characters of a kernel's name in a table; cuBLAS has names of hundreds.
const NAME: usize = 60;

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    header: &'a Header,
    #[serde(flatten)]
    profile: &'a Profile,
}

/// Writes all profiles.
pub fn write_profiles(
    out: &mut impl Write,
    format: Format,
    header: &Header,
    profiles: &[Profile],
) -> io::Result<()> {
    match format {
        Format::Md => {
            let mut profiles = profiles.iter();
            if let Some(first) = profiles.next() {
                markdown(out, header, first)?;
            }
            profiles.try_for_each(|profile| {
                writeln!(out)?;
                markdown(out, header, profile)
            })
        }
        Format::Csv => csv(out, header, profiles),
        Format::Json => {
            let rows: Vec<_> = profiles
                .iter()
                .map(|profile| Row { header, profile })
                .collect();
            serde_json::to_writer_pretty(&mut *out, &rows)?;
            writeln!(out)
        }
    }
}

fn markdown(out: &mut impl Write, header: &Header, profile: &Profile) -> io::Result<()> {
    use Align::{Left, Right};
    let (model, device) = (&header.model, &header.device);
    let (test, steps) = (&profile.test, profile.steps);
    writeln!(
        out,
        "**{test}** of {model} on {device}, mean of {steps} steps"
    )?;
    writeln!(out)?;
    let titles = [
        ("kernel", Left),
        ("grid", Right),
        ("block", Right),
        ("calls", Right),
        ("mean µs", Right),
        ("path µs", Right),
        ("idle µs", Right),
        ("of step", Right),
        ("MB a call", Right),
        ("GB/s", Right),
        ("of copy", Right),
    ];
    let rows: Vec<_> = profile
        .kernels
        .iter()
        .map(|row| cells(row, profile.step_us))
        .collect();
    table::markdown(out, titles, &rows)?;
    writeln!(out)?;
    writeln!(
        out,
        "kernels on the critical path {:.1} µs (of it {:.1} µs idle) + between steps {:.1} µs = step {:.1} µs",
        profile.path_us, profile.idle_us, profile.between_us, profile.step_us
    )
}

fn cells(row: &KernelRow, step_us: f64) -> [String; 11] {
    let unknown = || "-".to_owned();
    [
        cell(&short(&row.kernel)),
        extent(row.grid),
        extent(row.block),
        // A grid that changes from step to step has fewer calls than steps.
        format!("{}", (row.calls * 100.0).round() / 100.0),
        format!("{:.2}", row.mean_us),
        format!("{:.1}", row.path_us),
        format!("{:.1}", row.idle_us),
        format!("{:.1} %", 100.0 * row.path_us / step_us),
        row.bytes
            .map_or_else(unknown, |bytes| format!("{:.3}", bytes as f64 / 1e6)),
        row.gb_per_second
            .map_or_else(unknown, |gb| format!("{gb:.1}")),
        row.share
            .map_or_else(unknown, |share| format!("{:.1} %", 100.0 * share)),
    ]
}

/// `8 x 2 x 1` as `8x2`.
fn extent([x, y, z]: [u32; 3]) -> String {
    match (y, z) {
        (1, 1) => x.to_string(),
        (_, 1) => format!("{x}x{y}"),
        _ => format!("{x}x{y}x{z}"),
    }
}

fn short(name: &str) -> String {
    match name.chars().count() {
        n if n <= NAME => name.to_owned(),
        _ => name.chars().take(NAME - 1).chain(['…']).collect(),
    }
}

fn csv(out: &mut impl Write, header: &Header, profiles: &[Profile]) -> io::Result<()> {
    writeln!(
        out,
        "model,device,test,batch,depth,steps,kernel,grid,block,calls,mean_us,path_us,idle_us,bytes,gb_per_second,share"
    )?;
    let (model, device) = (quoted(&header.model), quoted(&header.device));
    for profile in profiles {
        let test = format!(
            "{model},{device},{},{},{},{}",
            quoted(&profile.test),
            profile.batch,
            profile.depth,
            profile.steps
        );
        for row in &profile.kernels {
            writeln!(
                out,
                "{test},{},{},{},{},{},{},{},{},{},{}",
                quoted(&row.kernel),
                extent(row.grid),
                extent(row.block),
                row.calls,
                row.mean_us,
                row.path_us,
                row.idle_us,
                row.bytes.map_or(String::new(), |bytes| bytes.to_string()),
                optional(row.gb_per_second),
                optional(row.share)
            )?;
        }
        // Not kernels, which brackets tell: their times are the sums.
        for (name, path, idle) in [
            ("(all kernels)", profile.path_us, Some(profile.idle_us)),
            ("(between steps)", profile.between_us, None),
            ("(step)", profile.step_us, None),
        ] {
            writeln!(out, "{test},{name},,,,,{path},{},,,", optional(idle))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let kernel = KernelRow {
            kernel: "a|b".to_owned(),
            grid: [8, 2, 1],
            block: [128, 1, 1],
            calls: 16.0,
            mean_us: 2.0,
            path_us: 20.0,
            idle_us: 1.5,
            bytes: Some(2_500_000),
            gb_per_second: Some(2000.0),
            share: Some(0.75),
        };
        let library = KernelRow {
            kernel: "x".repeat(200),
            calls: 0.5,
            bytes: None,
            gb_per_second: None,
            share: None,
            ..kernel.clone()
        };
        Profile {
            test: "tg128".to_owned(),
            batch: 1,
            depth: 0,
            steps: 128,
            kernels: vec![kernel, library],
            path_us: 40.0,
            idle_us: 3.0,
            between_us: 10.0,
            step_us: 50.0,
        }
    }

    fn text(format: Format) -> String {
        let header = Header {
            model: "tiny".to_owned(),
            bytes: 1,
            parameters: 1,
            device: "GPU".to_owned(),
            copy_bandwidth: None,
        };
        let mut out = Vec::new();
        write_profiles(&mut out, format, &header, &[profile(), profile()]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_shows_what_is_known() {
        let text = text(Format::Md);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "**tg128** of tiny on GPU, mean of 128 steps");
        for part in ["a\\|b ", " 8x2 ", " 16 ", " 40.0 % ", " 2.500 ", " 75.0 % "] {
            assert!(lines[4].contains(part), "{part}: {}", lines[4]);
        }
        assert!(
            lines[5].contains("x…") && lines[5].contains(" - "),
            "{text}"
        );
        assert!(lines[7].ends_with("between steps 10.0 µs = step 50.0 µs"));
        assert_eq!(lines.len(), 17);
    }

    #[test]
    fn every_csv_line_has_all_fields() {
        let text = text(Format::Csv);
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(fields, [16; 11]);
        assert!(text.contains("(step),,,,,50,,,,"), "{text}");
    }

    #[test]
    fn json_has_a_value_for_each_test() {
        let rows: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(rows[1]["kernels"][0]["grid"][1], 2);
        assert_eq!(rows[0]["model"], "tiny");
        assert!(rows[0]["kernels"][1]["bytes"].is_null());
    }
}
