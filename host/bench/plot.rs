//! How speed grows: decoding against depth and against the batch, prompts against their length.

use super::svg::{self, Panel};
use super::{Figures, Header, Kind, Test};

/// Decode steps of a point, unless asked otherwise: short beside the depths.
pub const STEPS: usize = 32;
/// The deepest cache of a plot, unless asked otherwise.
pub const MOST_DEPTH: usize = 32 << 10;
const LEAST_DEPTH: usize = 64;
const MOST_BATCH: usize = 64;
const LEAST_PROMPT: usize = 16;
const MOST_PROMPT: usize = 16 << 10;

/// The lists that a user gave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lists<'a> {
    /// Lengths of prompts.
    pub prompts: Option<&'a [usize]>,
    /// Tokens in the cache.
    pub depths: Option<&'a [usize]>,
    /// Sequences.
    pub batches: Option<&'a [usize]>,
    /// Decode steps of a point; 0 is no decoding.
    pub steps: usize,
}

/// The points of all panels, each once. Lists that are not given are powers of two, of up to `most` tokens.
pub fn tests(lists: Lists<'_>, most: usize) -> Vec<Test> {
    let given = |list: Option<&[usize]>, default: Vec<usize>| list.map_or(default, <[_]>::to_vec);
    let depths = [0]
        .into_iter()
        .chain(doubling(LEAST_DEPTH, MOST_DEPTH.min(most)));
    let depths = given(lists.depths, depths.collect());
    let batches = given(lists.batches, doubling(1, MOST_BATCH).collect());
    let prompts = doubling(LEAST_PROMPT, MOST_PROMPT.min(most)).collect();
    let prompts = given(lists.prompts, prompts);

    let mut tests = Test::all(&[], &[lists.steps], &depths, &[1]);
    tests.extend(Test::all(&[], &[lists.steps], &[0], &batches));
    tests.extend(Test::all(&prompts, &[], &[0], &[]));
    let mut unique = Vec::with_capacity(tests.len());
    for test in tests {
        if !unique.contains(&test) {
            unique.push(test);
        }
    }
    unique
}

fn doubling(first: usize, last: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(first), |n| Some(2 * n)).take_while(move |&n| n <= last)
}

/// The plot of `figures`, which are those of the first `tests`, as SVG.
pub fn svg(header: &Header, tests: &[Test], figures: &[Figures]) -> String {
    let rows = || tests.iter().zip(figures);
    let decodes = || rows().filter(|(test, _)| matches!(test.kind, Kind::Decode(_)));
    let step_ms = |figures: &Figures| 1e3 * figures.batch as f64 / figures.median;
    let depths = decodes().filter(|(test, _)| test.batch == 1);
    let depths = depths.map(|(test, figures)| (test.depth, step_ms(figures)));
    let batches = decodes().filter(|(test, _)| test.depth == 0);
    let batches = batches.map(|(test, figures)| (test.batch, step_ms(figures)));
    let prompts = rows().filter_map(|(test, figures)| match test.kind {
        Kind::Prompt(tokens) => Some((tokens, figures.median)),
        Kind::Decode(_) => None,
    });
    let step = "milliseconds a step";
    let panels = [
        panel(["Decoding, by depth", "tokens in the cache", step], depths),
        panel(["Decoding, by batch", "sequences", step], batches),
        panel(
            ["Prompts, by length", "tokens", "tokens per second"],
            prompts,
        ),
    ];
    let subtitle = format!("{}; medians, both axes logarithmic", header.device);
    svg::page(&header.model, &subtitle, &panels)
}

fn panel(
    [title, x_label, y_label]: [&str; 3],
    points: impl Iterator<Item = (usize, f64)>,
) -> Panel {
    // A log axis has no place for what was too quick to measure.
    let points = points.filter(|(_, y)| y.is_finite() && *y > 0.0);
    let mut points: Vec<(f64, f64)> = points.map(|(x, y)| (x as f64, y)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Panel {
        title: title.to_owned(),
        x_label: x_label.to_owned(),
        y_label: y_label.to_owned(),
        points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_lists_double_up_to_what_fits() {
        let lists = Lists {
            steps: STEPS,
            ..Lists::default()
        };
        let all = tests(lists, usize::MAX);
        let names: Vec<String> = all.iter().map(Test::name).collect();
        for name in [
            "tg32",
            "tg32 @ d64",
            "tg32 @ d32768",
            "tg32 x64",
            "pp16",
            "pp16384",
        ] {
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{name}");
        }
        assert_eq!(names.len(), 11 + 6 + 11);
        let small = tests(lists, 500);
        assert!(small.iter().all(|test| test.context() <= 256 + STEPS));
        assert_eq!(small.len(), 4 + 6 + 5);
    }

    #[test]
    fn given_lists_are_taken_as_they_are() {
        let lists = Lists {
            prompts: Some(&[0]),
            depths: Some(&[100_000]),
            batches: Some(&[2]),
            steps: 4,
        };
        let names: Vec<String> = tests(lists, 64).iter().map(Test::name).collect();
        assert_eq!(names, ["tg4 @ d100000", "tg4 x2"]);
        let none = Lists { steps: 0, ..lists };
        assert!(tests(none, 64).is_empty());
    }

    #[test]
    fn each_point_lies_in_its_panel() {
        let lists = Lists {
            prompts: Some(&[16, 32]),
            depths: Some(&[0, 64]),
            batches: Some(&[1, 4]),
            steps: 2,
        };
        let tests = tests(lists, 1024);
        let figures: Vec<Figures> = tests
            .iter()
            .map(|test| Figures::new(test, vec![0.5], None, None))
            .collect();
        let header = Header {
            model: "tiny".to_owned(),
            bytes: 0,
            parameters: 0,
            device: "GPU".to_owned(),
            copy_bandwidth: None,
        };
        let page = svg(&header, &tests, &figures);
        let panels: Vec<usize> = page
            .split("<g ")
            .skip(1)
            .map(|panel| panel.matches("<circle").count())
            .collect();
        assert_eq!(panels, [2, 2, 2]);
        // Two steps in half a second; 32 tokens in half a second.
        assert!(page.contains("<title>4: 250.0000</title>"), "{page}");
        assert!(page.contains("<title>32: 64.0000</title>"), "{page}");
    }
}
