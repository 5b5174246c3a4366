//! Line charts with logarithmic axes, side by side in one SVG file.
//!
//! Written by hand: a chart is a few lines and labels, and plotting libraries bring fonts, or axes in
//! powers of ten where these lengths are powers of two.

use std::fmt::Write;

use crate::verify::html::escape;

/// Pixels of a panel, without its margins.
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 260.0;
/// Room around it for the axes' labels.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 58.0;
/// Mean width of a digit in the ticks' font of 11 pixels.
const DIGIT: f64 = 6.5;
/// Most ticks of a vertical axis.
const MOST_TICKS: usize = 8;

const STYLE: &str = "text{font-family:sans-serif;font-size:11px;fill:#222}\
    .title{font-size:17px;font-weight:bold}.panel{font-size:13px;font-weight:bold}\
    .grid{stroke:#e2e2e2}.axis{stroke:#444;fill:none}\
    .line{stroke:#1f5fa8;stroke-width:2;fill:none}.point{fill:#1f5fa8}";

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// What x counts.
    pub x_label: String,
    /// What y is.
    pub y_label: String,
    /// x from 0 on, y above 0; by ascending x.
    pub points: Vec<(f64, f64)>,
}

/// A page of `panels` from left to right, below `title` and `subtitle`. Panels without points are left
/// out.
pub fn page(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let panels: Vec<&Panel> = panels.iter().filter(|p| !p.points.is_empty()).collect();
    let step = LEFT + WIDTH + RIGHT;
    let (width, height) = (step * panels.len().max(1) as f64, TOP + HEIGHT + BOTTOM);
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text class=\"title\" x=\"16\" y=\"28\">{}</text>\n<text x=\"16\" y=\"48\">{}</text>\n",
            escape(title),
            escape(subtitle)
        ),
    );
    for (index, panel) in panels.iter().enumerate() {
        let left = index as f64 * step + LEFT;
        put(
            &mut out,
            format_args!("<g transform=\"translate({left} {TOP})\">\n"),
        );
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel) {
    let xs: Vec<f64> = panel.points.iter().map(|&(x, _)| x).collect();
    let ys: Vec<f64> = panel.points.iter().map(|&(_, y)| y).collect();
    // Where 0 lies on a logarithmic axis: one octave before the first number.
    let first = xs.iter().copied().filter(|&x| x > 0.0);
    let zero = first.fold(f64::INFINITY, f64::min).min(f64::MAX) / 2.0;
    let place = |x: f64| if x > 0.0 { x.log2() } else { zero.log2() };
    let x_axis = Axis::around(xs.iter().map(|&x| place(x)), WIDTH, 0.25);
    let y_axis = Axis::around(ys.iter().map(|y| y.log2()), HEIGHT, 0.2);
    let at = |x: f64| x_axis.pixel(place(x));
    let up = |y: f64| HEIGHT - y_axis.pixel(y.log2());

    put(
        out,
        format_args!(
            "<text class=\"panel\" x=\"0\" y=\"-14\">{}</text>\n",
            escape(&panel.title)
        ),
    );
    for tick in y_ticks(y_axis.from.exp2(), y_axis.to.exp2()) {
        let y = up(tick);
        put(
            out,
            format_args!(
                "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/><text text-anchor=\"end\" x=\"-7\" \
                 y=\"{:.1}\">{}</text>\n",
                y + 4.0,
                decimal(tick)
            ),
        );
    }
    let mut free_from = f64::NEG_INFINITY;
    for &x in &xs {
        let (pixel, label) = (at(x), binary(x));
        put(
            out,
            format_args!("<path class=\"grid\" d=\"M{pixel:.1} 0V{HEIGHT}\"/>\n"),
        );
        let half = label.len() as f64 * DIGIT / 2.0;
        if pixel - half >= free_from {
            free_from = pixel + half + DIGIT / 2.0;
            put(
                out,
                format_args!(
                    "<text text-anchor=\"middle\" x=\"{pixel:.1}\" y=\"{}\">{label}</text>\n",
                    HEIGHT + 17.0
                ),
            );
        }
    }
    let line: Vec<String> = panel
        .points
        .iter()
        .map(|&(x, y)| format!("{:.1},{:.1}", at(x), up(y)))
        .collect();
    put(
        out,
        format_args!(
            "<path class=\"axis\" d=\"M0 0V{HEIGHT}H{WIDTH}\"/>\n\
             <polyline class=\"line\" points=\"{}\"/>\n",
            line.join(" ")
        ),
    );
    for &(x, y) in &panel.points {
        put(
            out,
            format_args!(
                "<circle class=\"point\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{x}: {y:.4}</title>\
                 </circle>\n",
                at(x),
                up(y)
            ),
        );
    }
    put(
        out,
        format_args!(
            "<text text-anchor=\"middle\" x=\"{}\" y=\"{}\">{}</text>\n\
             <text text-anchor=\"middle\" transform=\"translate(-50 {}) rotate(-90)\">{}</text>\n",
            WIDTH / 2.0,
            HEIGHT + 42.0,
            escape(&panel.x_label),
            HEIGHT / 2.0,
            escape(&panel.y_label)
        ),
    );
}

/// A range of logarithms on so many pixels.
struct Axis {
    from: f64,
    to: f64,
    pixels: f64,
}

impl Axis {
    /// From the least to the largest of `values`, with `margin` octaves at both ends.
    fn around(values: impl Iterator<Item = f64> + Clone, pixels: f64, margin: f64) -> Axis {
        let from = values.clone().fold(f64::INFINITY, f64::min) - margin;
        let to = values.fold(f64::NEG_INFINITY, f64::max) + margin;
        Axis { from, to, pixels }
    }

    fn pixel(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from) * self.pixels
    }
}

/// Round numbers from `from` to `to`: as many in every decade as there is room for, and where the range is
/// too short for that, equal steps.
fn y_ticks(from: f64, to: f64) -> Vec<f64> {
    let inside = |tick: &f64| (from..=to).contains(tick);
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    for mantissas in [
        &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0][..],
        &[1.0, 2.0, 5.0],
        &[1.0, 3.0],
        &[1.0],
    ] {
        let ticks = decades
            .clone()
            .flat_map(|decade| mantissas.iter().map(move |m| m * 10f64.powi(decade)));
        let ticks: Vec<f64> = ticks.filter(inside).collect();
        if ticks.len() < 4 {
            break;
        }
        if ticks.len() <= MOST_TICKS {
            return ticks;
        }
    }
    let step = round_step((to - from) / (MOST_TICKS - 2) as f64);
    let numbers = (from / step).ceil() as u64..=(to / step).floor() as u64;
    numbers.map(|number| number as f64 * step).collect()
}

/// The least of 1, 2 or 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    let rounded = [1.0, 2.0, 5.0].map(|mantissa| mantissa * decade);
    let fitting = rounded.into_iter().find(|&rounded| rounded >= step);
    fitting.unwrap_or(10.0 * decade)
}

/// `0.25`, `40`, `1.5k`, `2M`.
fn decimal(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    // Six digits are more than any tick has, and hide what multiplication adds.
    let digits = 5 - scaled.log10().floor().clamp(-9.0, 5.0) as i32;
    let text = format!("{scaled:.*}", digits.max(0) as usize);
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

/// `0`, `512`, `2k` for 2,048.
fn binary(value: f64) -> String {
    match value as u64 {
        n if n >= 1024 && n.is_multiple_of(1024) => format!("{}k", n / 1024),
        n => n.to_string(),
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: &[(f64, f64)]) -> Panel {
        Panel {
            title: "a < b".to_owned(),
            x_label: "x".to_owned(),
            y_label: "y".to_owned(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn ticks_are_round_and_neither_few_nor_many() {
        assert_eq!(y_ticks(0.9, 60.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        let ticks = [0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0].map(decimal);
        assert_eq!(
            y_ticks(0.5, 9.6)
                .into_iter()
                .map(decimal)
                .collect::<Vec<_>>(),
            ticks
        );
        assert_eq!(y_ticks(300.0, 40_000.0).len(), 6);
        let wide = y_ticks(0.5, 20_000.0);
        assert_eq!(wide, [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        let narrow: Vec<String> = y_ticks(1.83, 2.31).into_iter().map(decimal).collect();
        assert_eq!(narrow, ["1.9", "2", "2.1", "2.2", "2.3"]);
        for (from, to) in [
            (1e-3, 1.1e-3),
            (7.0, 9.0),
            (0.04, 3.0),
            (1.0, 1e9),
            (99.0, 1001.0),
        ] {
            let ticks = y_ticks(from, to).len();
            assert!((3..=10).contains(&ticks), "{ticks} from {from} to {to}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.000_25, 0.3, 7.0, 40.0, 1500.0, 20_000.0, 3e6];
        let texts = ["0.00025", "0.3", "7", "40", "1.5k", "20k", "3M"];
        assert_eq!(numbers.map(decimal), texts);
        assert_eq!(
            [0.0, 16.0, 1000.0, 32_768.0].map(binary),
            ["0", "16", "1000", "32k"]
        );
    }

    #[test]
    fn points_lie_on_the_page_in_their_order() {
        for points in [
            &[(0.0, 2.0), (64.0, 2.0), (32_768.0, 9.0)][..],
            &[(0.0, 1.0)],
            &[(5.0, 3.0)],
        ] {
            let page = page("model & device", "", &[panel(points), panel(&[])]);
            assert!(page.contains("model &amp; device") && page.contains("a &lt; b"));
            let places = page.split("cx=\"").skip(1);
            let places: Vec<f64> = places
                .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(places.len(), points.len());
            assert!(places.is_sorted() && places.iter().all(|x| (0.0..=WIDTH).contains(x)));
            assert_eq!(page.matches("<g ").count(), 1);
        }
    }

    #[test]
    fn labels_that_would_overlap_are_left_out() {
        let points: Vec<(f64, f64)> = (1000..1200).map(|x| (f64::from(x), 1.0)).collect();
        let page = page("", "", &[panel(&points)]);
        let labels = page.matches("text-anchor=\"middle\" x").count();
        assert!((5..20).contains(&labels), "{labels}");
    }
}
