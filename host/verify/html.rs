//! A report as one self-contained page: a heat map of the error by block and operation.

use std::fmt::Write;

use super::report::{CheckedRow, Report, StepKind, StepReport};
use crate::backend::TensorName;

/// Errors from 1e-8 (f32 rounding) to 1 (nothing in common) span the colours.
const DECADES: f64 = 8.0;

/// The page. `title` names the model.
pub fn page(report: &Report, title: &str) -> String {
    let mut body = String::new();
    heading(&mut body, report, title);
    for kind in StepKind::ALL {
        let steps: Vec<_> = report.steps.iter().filter(|s| s.kind == kind).collect();
        if steps.iter().any(|step| !step.rows.is_empty()) {
            heat_map(&mut body, report, kind, &steps);
        }
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} — hyperion verify</title><style>{STYLE}</style></head>\n<body>\n{body}\
         <script>{SCRIPT}</script>\n</body></html>\n",
        escape(title)
    )
}

fn heading(out: &mut String, report: &Report, title: &str) {
    let n_rows = report.rows().count();
    let n_failed = report.rows().filter(|(_, row)| !row.passed).count();
    put(out, format_args!("<h1>{}</h1>\n", escape(title)));
    put(
        out,
        format_args!(
            "<p>{} against {}; prompt of {} tokens, {} steps, {n_rows} operations checked.</p>\n",
            escape(&report.backend),
            escape(&report.reference),
            report.prompt_tokens,
            report.steps.len()
        ),
    );
    match report.first_fault() {
        None => out.push_str(
            "<p class=\"verdict good\">✓ Passed: every operation is within its bound.</p>\n",
        ),
        Some(fault) => {
            let step = &report.steps[fault.step];
            put(
                out,
                format_args!(
                    "<div class=\"verdict bad\"><p>✗ The first operation out of bounds is \
                     <b>{}</b>, in the {} step at position {}; {n_failed} operations are out of \
                     bounds.</p><p>{}</p><p>It depends on {}.</p></div>\n",
                    escape(&fault.tensor),
                    step.kind,
                    step.start,
                    escape(&fault.what),
                    escape(&fault.depends_on)
                ),
            );
        }
    }
    out.push_str(LEGEND);
}

/// Blocks down, operations across; a cell is the worst of all steps of one kind.
fn heat_map(out: &mut String, report: &Report, kind: StepKind, steps: &[&StepReport]) {
    let mut bases: Vec<&'static str> = Vec::new();
    let mut layers: Vec<Option<usize>> = Vec::new();
    for row in steps.iter().flat_map(|step| &step.rows) {
        if row.name.layer.is_some() && !bases.contains(&row.name.base) {
            bases.push(row.name.base);
        }
        if row.name.layer.is_some() && !layers.contains(&row.name.layer) {
            layers.push(row.name.layer);
        }
    }
    layers.sort();
    let fault = report.first_fault();
    let first = |name: TensorName| {
        fault.as_ref().is_some_and(|fault| {
            fault.tensor == name.to_string() && report.steps[fault.step].kind == kind
        })
    };

    let tokens: usize = steps.iter().map(|step| step.tokens).sum();
    put(
        out,
        format_args!(
            "<h2>{kind}: {tokens} tokens in {} steps</h2>\n<div class=\"scroll\">",
            steps.len()
        ),
    );
    out.push_str("<table class=\"outside\"><tr>");
    let mut outside: Vec<TensorName> = Vec::new();
    for row in steps.iter().flat_map(|step| &step.rows) {
        if row.name.layer.is_none() && !outside.contains(&row.name) {
            outside.push(row.name);
        }
    }
    for name in &outside {
        put(out, format_args!("<th>{}</th>", escape(name.base)));
    }
    out.push_str("</tr><tr>");
    for &name in &outside {
        cell(out, steps, name, first(name));
    }
    out.push_str("</tr></table>\n<table><tr><th>block</th>");
    for base in &bases {
        put(
            out,
            format_args!("<th class=\"op\"><span>{}</span></th>", escape(base)),
        );
    }
    out.push_str("</tr>\n");
    for layer in layers {
        put(out, format_args!("<tr><th>{}</th>", layer.unwrap_or(0)));
        for &base in &bases {
            let name = TensorName { base, layer };
            cell(out, steps, name, first(name));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn cell(out: &mut String, steps: &[&StepReport], name: TensorName, first: bool) {
    let rows = steps
        .iter()
        .flat_map(|step| step.rows.iter().map(move |row| (*step, row)));
    let worst = rows
        .filter(|(_, row)| row.name == name)
        .max_by(|a, b| a.1.severity().total_cmp(&b.1.severity()));
    let Some((step, row)) = worst else {
        out.push_str("<td class=\"none\"></td>");
        return;
    };
    let class = match (row.passed, first) {
        (true, _) => "",
        (false, false) => " class=\"bad\"",
        (false, true) => " class=\"bad first\"",
    };
    let error = row.difference.relative;
    let label = if row.difference.non_finite > 0 || !error.is_finite() {
        "NaN".to_owned()
    } else if error == 0.0 {
        "0".to_owned()
    } else {
        format!("{error:.0e}")
    };
    put(
        out,
        format_args!(
            "<td{class} tabindex=\"0\" style=\"--t:{:.3}\" title=\"{}\">{label}</td>",
            heat(row),
            escape(&tooltip(step, row))
        ),
    );
}

/// Where on the colour scale the error lies, from 0 to 1.
fn heat(row: &CheckedRow) -> f64 {
    let error = row.difference.relative;
    if row.difference.non_finite > 0 || !error.is_finite() {
        return 1.0;
    }
    (1.0 + error.max(1e-30).log10() / DECADES).clamp(0.0, 1.0)
}

fn tooltip(step: &StepReport, row: &CheckedRow) -> String {
    let difference = &row.difference;
    let (token, element) = row.worst_place();
    let verdict = if row.passed { "within" } else { "OUT OF" };
    format!(
        "{}, {} step at position {}\n\
         relative error {:.3e}, {verdict} the bound {:.1e}\n\
         {}\n\
         largest error {:.3e} at token {token}, element {element}\n\
         cosine {:.9}, {} values not finite",
        row.name,
        step.kind,
        step.start,
        difference.relative,
        row.bound,
        row.why,
        difference.max,
        difference.cosine,
        difference.non_finite
    )
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

/// `text` for the inside of an element or an attribute of HTML or SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const LEGEND: &str = "<div class=\"legend\"><span>relative error</span><span>≤1e-8</span>\
<i></i><span>1</span><span class=\"key bad\">out of bounds</span>\
<span class=\"key bad first\">first one</span></div>\n<pre id=\"detail\" aria-live=\"polite\">\
Point at a cell, or move with the Tab key, for its figures.</pre>\n";

const STYLE: &str = "
:root{color-scheme:light dark;--bg:light-dark(#fff,#16181d);--fg:light-dark(#1c2026,#e4e7ec);
--soft:light-dark(#667,#9aa3b2);--line:light-dark(#d8dce3,#343943);
--low:light-dark(#eef4fb,#1d2733);--high:light-dark(#b3261e,#ff6b5e);
--mid:light-dark(#f2c14e,#a8791b);--alarm:light-dark(#b3261e,#ff8a80);--good:light-dark(#1b7f4b,#63d297)}
body{font:14px/1.5 system-ui,sans-serif;background:var(--bg);color:var(--fg);margin:2rem auto;
max-width:1500px;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.05rem;margin:1.5rem 0 .4rem}
p{margin:.3rem 0}.verdict{border-left:4px solid;padding:.4rem .8rem;margin:.8rem 0}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--alarm)}
.scroll{overflow-x:auto}table{border-collapse:separate;border-spacing:2px;margin:.3rem 0}
th{font-weight:500;color:var(--soft);font-size:12px;text-align:right;padding:0 .4rem;white-space:nowrap}
.outside th{text-align:center}
th.op{vertical-align:bottom;padding:0}th.op span{writing-mode:vertical-rl;transform:rotate(180deg);
text-align:left;padding:.2rem 0}
td{font:11px/1 ui-monospace,monospace;text-align:center;min-width:3.4em;height:2.1em;border-radius:3px;
background:color-mix(in oklab,color-mix(in oklab,var(--low),var(--mid) calc(min(var(--t)*2,1)*100%)),
var(--high) calc(max(var(--t)*2 - 1,0)*100%))}
td.none{background:none}td:hover,td:focus{outline:2px solid var(--fg)}
td.bad,.key.bad{outline:2px solid var(--alarm);outline-offset:-2px;font-weight:700}
td.first,.key.first{outline:3px solid var(--fg);box-shadow:0 0 0 3px var(--alarm);position:relative}
.legend{display:flex;gap:.6rem;align-items:center;flex-wrap:wrap;color:var(--soft);font-size:12px;margin:1rem 0 .4rem}
.legend i{width:12rem;height:1em;border-radius:3px;
background:linear-gradient(90deg,var(--low),var(--mid),var(--high))}
.key{padding:.1rem .5rem;border-radius:3px}
#detail{position:sticky;top:0;background:var(--bg);border:1px solid var(--line);border-radius:4px;
padding:.5rem .8rem;min-height:7.5em;margin:.4rem 0;white-space:pre-wrap;z-index:1}";

const SCRIPT: &str = "
const detail=document.getElementById('detail');
for(const cell of document.querySelectorAll('td[title]')){
const show=()=>{detail.textContent=cell.title};
cell.addEventListener('mouseenter',show);cell.addEventListener('focus',show)}
const first=document.querySelector('td.first');if(first)detail.textContent=first.title;";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Difference;

    fn row(relative: f64, bound: f64) -> CheckedRow {
        CheckedRow {
            name: TensorName {
                base: "attn_norm",
                layer: Some(3),
            },
            elements: 2,
            difference: Difference {
                relative,
                ..Difference::of(&[1.0, 1.0], &[1.0, 1.0])
            },
            lengths: None,
            saturated: 0,
            bound,
            why: "a <b>".to_owned(),
            passed: relative <= bound,
        }
    }

    fn report(row: CheckedRow) -> Report {
        let step = StepReport {
            kind: StepKind::Decode,
            start: 7,
            tokens: 1,
            rows: vec![row],
            missing: Vec::new(),
            choices: crate::verify::ExpertChoices::default(),
        };
        Report {
            backend: "one".to_owned(),
            reference: "other".to_owned(),
            prompt_tokens: 7,
            steps: vec![step],
        }
    }

    #[test]
    fn the_first_fault_is_marked() {
        let good = page(&report(row(1e-5, 1e-3)), "<model>");
        assert!(good.contains("Passed") && !good.contains("<td class=\"bad"));
        assert!(good.contains("&lt;model&gt;") && good.contains("a &lt;b&gt;"));
        let bad = page(&report(row(0.5, 1e-3)), "m");
        assert!(bad.contains("<td class=\"bad first\"") && bad.contains("<b>attn_norm-3</b>"));
    }

    #[test]
    fn colours_are_logarithmic() {
        assert_eq!(heat(&row(1e-9, 1.0)), 0.0);
        assert!((heat(&row(1e-4, 1.0)) - 0.5).abs() < 1e-9);
        assert_eq!(heat(&row(f64::NAN, 1.0)), 1.0);
    }
}
