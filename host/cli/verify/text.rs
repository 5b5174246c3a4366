//! A verification's report as a table.

use std::io::{self, Write};

use crate::verify::{CheckedRow, Report, StepKind, StepReport};

/// Rows that are printed one by one without `-v`.
const WORST: usize = 5;

/// Writes the summary, the worst operations (all of them if `verbose`) and the verdict.
pub fn write(out: &mut impl Write, report: &Report, verbose: bool) -> io::Result<()> {
    let decoded = report.steps.len() - report.steps.iter().filter(|s| is_prefill(s)).count();
    writeln!(
        out,
        "{} against {}: a prompt of {} tokens in {} steps, {decoded} decode steps\n",
        report.backend,
        report.reference,
        report.prompt_tokens,
        report.steps.len() - decoded,
    )?;
    for kind in StepKind::ALL {
        let rows: Vec<_> = report.rows().filter(|(s, _)| s.kind == kind).collect();
        if !rows.is_empty() {
            summary(out, kind, &rows)?;
        }
    }
    let mut rows: Vec<_> = report.rows().collect();
    if verbose {
        writeln!(out, "every operation in order of execution")?;
    } else {
        rows.sort_by(|a, b| b.1.severity().total_cmp(&a.1.severity()));
        rows.truncate(WORST);
        writeln!(out, "closest to their bounds, or beyond")?;
    }
    details(out, &rows)?;
    let choices = report.choices();
    if choices.total > 0 {
        writeln!(
            out,
            "{} of {} choices of experts are others than the reference's, where scores nearly tie",
            choices.swapped, choices.total
        )?;
    }
    match report.first_fault() {
        None => writeln!(out, "passed: every operation is within its bound"),
        Some(fault) => {
            let step = &report.steps[fault.step];
            writeln!(
                out,
                "FAILED: the first operation out of bounds is {} in the {} step at position {}\n  \
                 {}\n  it depends on {}",
                fault.tensor, step.kind, step.start, fault.what, fault.depends_on
            )
        }
    }
}

fn is_prefill(step: &StepReport) -> bool {
    step.kind == StepKind::Prefill
}

/// One line for each operation: the worst over all blocks and steps.
fn summary(
    out: &mut impl Write,
    kind: StepKind,
    rows: &[(&StepReport, &CheckedRow)],
) -> io::Result<()> {
    let mut bases: Vec<&str> = Vec::new();
    for (_, row) in rows {
        if !bases.contains(&row.name.base) {
            bases.push(row.name.base);
        }
    }
    writeln!(
        out,
        "{kind:<16} {:>6} {:>9} {:>9} {:>9} {:>12} {:>10}  worst in",
        "count", "relative", "bound", "max", "1 - cosine", "non-finite"
    )?;
    for base in bases {
        let of_kind = || {
            rows.iter()
                .map(|(_, row)| *row)
                .filter(|r| r.name.base == base)
        };
        let Some(worst) = of_kind().max_by(|a, b| a.severity().total_cmp(&b.severity())) else {
            continue;
        };
        let max = of_kind().map(|row| row.difference.max).fold(0.0, f64::max);
        let angle = of_kind().map(|row| 1.0 - row.difference.cosine);
        let angle = angle.fold(0.0, f64::max);
        let non_finite: usize = of_kind().map(|row| row.difference.non_finite).sum();
        writeln!(
            out,
            "{base:<16} {:>6} {:>9.1e} {:>9.1e} {max:>9.1e} {angle:>12.1e} {non_finite:>10}  {}{}",
            of_kind().count(),
            worst.difference.relative,
            worst.bound,
            worst.name,
            verdict(worst)
        )?;
    }
    writeln!(out)
}

fn details(out: &mut impl Write, rows: &[(&StepReport, &CheckedRow)]) -> io::Result<()> {
    writeln!(
        out,
        "{:<20} {:<16} {:>9} {:>9} {:>9} {:>9} {:>10}  worst at",
        "tensor", "step", "relative", "bound", "max", "cosine", "non-finite"
    )?;
    for (step, row) in rows {
        let (token, element) = row.worst_place();
        writeln!(
            out,
            "{:<20} {:<16} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.6} {:>10}  token {token}, element \
             {element}{}",
            row.name.to_string(),
            format!("{} {}+{}", step.kind, step.start, step.tokens),
            row.difference.relative,
            row.bound,
            row.difference.max,
            row.difference.cosine,
            row.difference.non_finite,
            verdict(row)
        )?;
    }
    writeln!(out)
}

fn verdict(row: &CheckedRow) -> &'static str {
    if row.passed { "" } else { "  OUT OF BOUNDS" }
}
