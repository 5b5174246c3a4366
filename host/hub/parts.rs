//! Models in several files, `NAME-00001-of-00003.gguf` as llama.cpp writes them.

/// What a part's path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The path up to the number.
    stem: &'a str,
    /// From 1.
    pub number: u32,
    /// Parts in all.
    pub total: u32,
}

impl<'a> Part<'a> {
    /// `None` where the path is not that of a part.
    pub fn of(path: &'a str) -> Option<Self> {
        let (rest, total) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, total) = (five_digits(number)?, five_digits(total)?);
        let valid = (1..=total).contains(&number) && !stem.is_empty();
        valid.then_some(Self {
            stem,
            number,
            total,
        })
    }

    /// Paths of all parts, in order.
    pub fn all(self) -> impl Iterator<Item = String> {
        let Self { stem, total, .. } = self;
        (1..=total).map(move |number| format!("{stem}-{number:05}-of-{total:05}.gguf"))
    }
}

fn five_digits(text: &str) -> Option<u32> {
    let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_recognized() {
        let part = Part::of("q/m-of-x-00002-of-00003.gguf").unwrap();
        assert_eq!((part.number, part.total), (2, 3));
        let all: Vec<_> = part.all().collect();
        assert_eq!(all[0], "q/m-of-x-00001-of-00003.gguf");
        assert_eq!(all[2], "q/m-of-x-00003-of-00003.gguf");
        assert_eq!(all.len(), 3);
        for whole in [
            "m.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-00003.bin",
            "-00001-of-00003.gguf",
            "m-+0001-of-00003.gguf",
        ] {
            assert_eq!(Part::of(whole), None, "{whole}");
        }
    }
}
