//! What every backend may rely on in a step.

use super::{BackendError, PAGE_TOKENS, PageId, SequenceStep};

/// Checks a step of a backend with `vocab` tokens, `n_pages` pages and a context of `context` positions.
///
/// # Errors
/// A sequence without tokens or whose pages do not cover them, a page or a token that there is not, an end
/// beyond the context, and a written page that the step also uses for other positions.
pub fn check_step(
    vocab: usize,
    n_pages: usize,
    context: usize,
    sequences: &[SequenceStep<'_>],
) -> Result<(), BackendError> {
    for (sequence, step) in sequences.iter().enumerate() {
        // A start near the largest integer must not wrap round.
        let end = step.start.saturating_add(step.tokens.len());
        let covered = step.pages.len().saturating_mul(PAGE_TOKENS);
        let known = step.pages.iter().all(|&page| (page as usize) < n_pages);
        if step.tokens.is_empty() || covered < end || !known {
            return Err(BackendError::Pages {
                tokens: step.tokens.len(),
                end,
                pages: step.pages.len(),
            });
        }
        if end > context {
            return Err(BackendError::Context {
                sequence,
                end,
                context,
            });
        }
        let is_unknown = |&token: &u32| token as usize >= vocab;
        if let Some(index) = step.tokens.iter().position(is_unknown) {
            return Err(BackendError::Token {
                token: step.tokens[index],
                position: step.start + index,
                vocab,
            });
        }
    }
    check_written_pages(n_pages, sequences)
}

/// Every page that is written belongs to one place of one sequence. Pages that are only read may be shared.
fn check_written_pages(n_pages: usize, sequences: &[SequenceStep<'_>]) -> Result<(), BackendError> {
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
fn used_pages<'a>(step: &SequenceStep<'a>) -> &'a [PageId] {
    &step.pages[..step.end().div_ceil(PAGE_TOKENS)]
}

/// The error for a page that is written and used twice.
fn name_users(page: PageId, sequences: &[SequenceStep<'_>]) -> BackendError {
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
    use crate::backend::Want;

    const TOKENS: [u32; 200] = [1; 200];

    fn step(start: usize, tokens: usize, pages: &[PageId]) -> SequenceStep<'_> {
        SequenceStep {
            tokens: &TOKENS[..tokens],
            start,
            pages,
            want: Want::Nothing,
        }
    }

    fn check(sequences: &[SequenceStep<'_>]) -> Result<(), BackendError> {
        check_step(10, 8, 150, sequences)
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
        let cases: [(&[SequenceStep<'_>], _); 6] = [
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
        let found = check(&[SequenceStep {
            tokens: &unknown,
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
}
