//! What every backend may rely on in a step.

use super::{BackendError, Choice, Limits, MAX_LOGPROBS, PAGE_TOKENS, PageId, Report, Row};

/// Checks a step of a backend with `vocab` tokens and these `limits`.
///
/// # Errors
/// More rows or tokens than fit, a row without tokens or whose pages do not cover them, a page or a token that there
/// is not, an end beyond the context, a written page that the step also uses for other positions, and a choice or
/// report that does not fit its row.
pub fn check_step(vocab: usize, limits: Limits, rows: &[Row<'_>]) -> Result<(), BackendError> {
    let tokens = rows.iter().map(|row| row.tokens.len()).sum();
    if tokens > limits.max_tokens || rows.len() > limits.max_sequences {
        return Err(BackendError::TooLarge {
            tokens,
            sequences: rows.len(),
            max_tokens: limits.max_tokens,
            max_sequences: limits.max_sequences,
        });
    }
    for (index, row) in rows.iter().enumerate() {
        check_places(index, row, limits)?;
        let known = row.tokens.known();
        let is_unknown = |&token: &u32| token as usize >= vocab;
        if let Some(offset) = known.iter().position(is_unknown) {
            return Err(BackendError::Token {
                token: known[offset],
                position: row.start + offset,
                vocab,
            });
        }
        if let Some(what) = fault_of_ask(vocab, row) {
            return Err(BackendError::Ask { row: index, what });
        }
    }
    check_written_pages(limits.n_pages, rows)
}

fn check_places(sequence: usize, row: &Row<'_>, limits: Limits) -> Result<(), BackendError> {
    let (tokens, end) = (row.tokens.len(), row.end());
    let covered = row.pages.len().saturating_mul(PAGE_TOKENS);
    let known = row
        .pages
        .iter()
        .all(|&page| (page as usize) < limits.n_pages);
    if tokens == 0 || covered < end || !known {
        return Err(BackendError::Pages {
            tokens,
            end,
            pages: row.pages.len(),
        });
    }
    if end > limits.max_context {
        return Err(BackendError::Context {
            sequence,
            end,
            context: limits.max_context,
        });
    }
    Ok(())
}

/// What is wrong with what a row asks for.
fn fault_of_ask(vocab: usize, row: &Row<'_>) -> Option<&'static str> {
    let report = row.ask.report;
    if matches!(report, Report::TopLogprobs(most) if most > MAX_LOGPROBS) {
        return Some("more log-probabilities than are reported");
    }
    let Some(choice) = &row.ask.choose else {
        let is_of_choice = matches!(report, Report::TopLogprobs(_));
        return is_of_choice.then_some("log-probabilities of a token that nobody chooses");
    };
    // In full: who adds a part of a choice decides here what is checked about it.
    let Choice {
        draw,
        mask,
        bias,
        counts,
        penalties: _,
        drafts,
    } = *choice;
    if draw.is_some_and(|draw| draw.temperature.is_nan() || draw.temperature <= 0.0) {
        return Some("a draw at a temperature that is not above 0");
    }
    let masks = drafts.iter().filter_map(|draft| draft.mask.as_deref());
    if (mask.into_iter().chain(masks)).any(|mask| mask.len() != vocab.div_ceil(32)) {
        return Some("a mask that is not of the vocabulary's size");
    }
    let bias = bias.iter().map(|&(token, _)| token);
    let counts = counts
        .iter()
        .chain(drafts.iter().flat_map(|draft| &draft.counts));
    let mut named = bias.chain(counts.map(|&(token, _)| token));
    if named.any(|token| token as usize >= vocab) {
        return Some("a bias or a count of a token outside the vocabulary");
    }
    (drafts.len() >= row.tokens.len()).then_some("no token before its drafts")
}

/// Every page that is written belongs to one place of one sequence. Pages that are only read may be shared.
fn check_written_pages(n_pages: usize, sequences: &[Row<'_>]) -> Result<(), BackendError> {
    // One bit a page: a step of many long sequences uses thousands of pages.
    let mut used = Pages::none_of(n_pages);
    let mut written = Pages::none_of(n_pages);
    let mut shared = None;
    for step in sequences {
        for (index, &page) in used_pages(step).iter().enumerate() {
            let writes = index >= step.start / PAGE_TOKENS;
            let was_written = written.has(page);
            if was_written || (writes && used.has(page)) {
                shared = Some(page);
            }
            used.insert(page);
            if writes {
                written.insert(page);
            }
        }
    }
    match shared {
        None => Ok(()),
        Some(page) => Err(name_users(page, sequences)),
    }
}

/// The pages of a sequence's positions, without those kept for later ones.
fn used_pages<'a>(step: &Row<'a>) -> &'a [PageId] {
    &step.pages[..step.end().div_ceil(PAGE_TOKENS)]
}

/// The error for a page that is written and used twice.
fn name_users(page: PageId, sequences: &[Row<'_>]) -> BackendError {
    let uses = sequences.iter().enumerate().flat_map(|(sequence, step)| {
        let first_written = step.start / PAGE_TOKENS;
        let pages = used_pages(step).iter().enumerate();
        pages
            .filter(move |&(_, &used)| used == page)
            .map(move |(index, _)| (sequence, index >= first_written))
    });
    let mut uses: Vec<(usize, bool)> = uses.collect();
    let at = uses.iter().position(|&(_, writes)| writes).unwrap_or(0);
    let (writer, _) = uses.remove(at);
    let other = uses.first().map_or(writer, |&(other, _)| other);
    BackendError::SharedPage {
        page,
        writer,
        other,
    }
}

/// A set of pages.
struct Pages(Vec<u64>);

impl Pages {
    fn none_of(n_pages: usize) -> Pages {
        Pages(vec![0; n_pages.div_ceil(64)])
    }

    fn has(&self, page: PageId) -> bool {
        self.0[page as usize / 64] >> (page % 64) & 1 == 1
    }

    fn insert(&mut self, page: PageId) {
        self.0[page as usize / 64] |= 1 << (page % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Ask, Draft, Draw, NewTokens, Ticket};

    const TOKENS: [u32; 200] = [1; 200];
    const LIMITS: Limits = Limits {
        max_sequences: 3,
        max_tokens: 200,
        n_pages: 8,
        max_context: 150,
    };

    fn step(start: usize, tokens: usize, pages: &[PageId]) -> Row<'_> {
        Row {
            tokens: NewTokens::Known(&TOKENS[..tokens]),
            start,
            pages,
            ask: Ask::NOTHING,
        }
    }

    fn check(sequences: &[Row<'_>]) -> Result<(), BackendError> {
        check_step(10, LIMITS, sequences)
    }

    #[test]
    fn a_step_ends_inside_the_context() {
        check(&[step(0, 150, &[0, 1, 2])]).unwrap();
        check(&[step(149, 1, &[0, 1, 2])]).unwrap();
        // The third page has room for more than the context.
        for (start, tokens) in [(0, 151), (150, 1), (149, 2)] {
            let found = check(&[step(0, 1, &[3]), step(start, tokens, &[0, 1, 2])]);
            let expected = start + tokens;
            assert!(
                matches!(found, Err(BackendError::Context { sequence: 1, end, context: 150 })
                    if end == expected),
                "{found:?}"
            );
        }
        for start in [usize::MAX, usize::MAX - 1] {
            let found = check(&[step(start, 1, &[0])]);
            assert!(
                matches!(found, Err(BackendError::Pages { .. })),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_written_page_has_one_place() {
        // Shared where it is only read, and unused pages do not count.
        check(&[step(64, 1, &[5, 1]), step(64, 1, &[5, 2])]).unwrap();
        check(&[step(0, 1, &[1, 7]), step(0, 1, &[2, 7])]).unwrap();
        let cases: [(&[Row<'_>], _); 6] = [
            (&[step(0, 1, &[3]), step(5, 1, &[3])], (3, 0, 1)),
            (&[step(64, 1, &[0, 3]), step(0, 80, &[1, 3])], (3, 0, 1)),
            (&[step(3, 1, &[6]), step(64, 1, &[6, 2])], (6, 0, 1)),
            (&[step(64, 1, &[6, 2]), step(3, 1, &[6])], (6, 1, 0)),
            (&[step(0, 65, &[4, 4])], (4, 0, 0)),
            (&[step(0, 1, &[0]), step(64, 1, &[4, 4])], (4, 1, 1)),
        ];
        for (sequences, expected) in cases {
            match check(sequences) {
                Err(BackendError::SharedPage {
                    page,
                    writer,
                    other,
                }) => assert_eq!((page, writer, other), expected),
                other => panic!("{expected:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn tokens_and_pages_exist() {
        let unknown = [1, 10];
        let found = check(&[Row {
            tokens: NewTokens::Known(&unknown),
            ..step(7, 2, &[0])
        }]);
        let expected = (10, 8, 10);
        assert!(
            matches!(found, Err(BackendError::Token { token, position, vocab })
                if (token, position, vocab) == expected),
            "{found:?}"
        );
        for bad in [step(0, 0, &[0]), step(0, 65, &[0]), step(0, 1, &[8])] {
            assert!(matches!(check(&[bad]), Err(BackendError::Pages { .. })));
        }
    }

    #[test]
    fn a_step_has_a_size() {
        let three = [step(0, 1, &[0]), step(0, 1, &[1]), step(0, 1, &[2])];
        check(&three).unwrap();
        let four = [&three[..], &[step(0, 1, &[3])]].concat();
        let many = [step(0, 101, &[0, 1]), step(0, 100, &[2, 3])];
        for (rows, expected) in [(&four[..], (4, 4)), (&many, (201, 2))] {
            let found = check(rows);
            assert!(
                matches!(found, Err(BackendError::TooLarge { tokens, sequences, .. })
                    if (tokens, sequences) == expected),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_asked_for_fits_the_row() {
        let greedy = Choice::GREEDY;
        let draw = Draw {
            temperature: 0.5,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            seed: 1,
        };
        let choose = |choice| Ask {
            choose: Some(choice),
            report: Report::TopLogprobs(2),
        };
        let (mask, counts) = ([u32::MAX], [(3, 1)]);
        let free = [Draft::default(), Draft::default()];
        let draft = |mask: &[u32], token| {
            [Draft {
                mask: Some(mask.to_vec()),
                counts: vec![(token, 1)],
            }]
        };
        let (sound_draft, narrow, unknown) = (draft(&mask, 3), draft(&[], 3), draft(&mask, 10));
        let sound = [
            choose(greedy),
            choose(Choice {
                draw: Some(draw),
                drafts: &free[..1],
                ..greedy
            }),
            choose(Choice {
                mask: Some(&mask),
                counts: &counts,
                drafts: &sound_draft,
                ..greedy
            }),
            choose(Choice {
                mask: Some(&mask),
                counts: &counts,
                ..greedy
            }),
        ];
        let asks = |ask, tokens| {
            check(&[Row {
                ask,
                ..step(0, tokens, &[0])
            }])
        };
        for ask in sound {
            asks(ask, 2).unwrap();
        }
        let hot = Draw {
            temperature: f32::NAN,
            ..draw
        };
        let unsound = [
            Ask {
                report: Report::TopLogprobs(21),
                ..choose(greedy)
            },
            Ask {
                choose: None,
                ..choose(greedy)
            },
            choose(Choice {
                draw: Some(hot),
                ..greedy
            }),
            choose(Choice {
                draw: Some(Draw {
                    temperature: 0.0,
                    ..draw
                }),
                ..greedy
            }),
            choose(Choice {
                mask: Some(&[]),
                ..greedy
            }),
            choose(Choice {
                bias: &[(10, 1.0)],
                ..greedy
            }),
            choose(Choice {
                counts: &[(10, 1)],
                ..greedy
            }),
            choose(Choice {
                drafts: &free,
                ..greedy
            }),
            choose(Choice {
                drafts: &narrow,
                ..greedy
            }),
            choose(Choice {
                drafts: &unknown,
                ..greedy
            }),
        ];
        for ask in unsound {
            let found = asks(ask, 2);
            assert!(
                matches!(found, Err(BackendError::Ask { row: 0, .. })),
                "{ask:?}: {found:?}"
            );
        }
        let later = Row {
            tokens: NewTokens::ChosenBy(Ticket(0), 0),
            ..step(5, 1, &[0])
        };
        check(&[later]).unwrap();
    }
}
