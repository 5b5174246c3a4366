//! Names of models in several files: `NAME-00001-of-00003.gguf` and so on.

/// Digits of a part's number and of the count.
const DIGITS: usize = 5;

/// The name of one part, from which the names of all follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName<'a> {
    prefix: &'a str,
    number: u32,
    count: u32,
    /// As it was given, such as `.gguf`.
    extension: &'a str,
}

impl<'a> SplitName<'a> {
    /// Reads the name of a part. It may have folders before it, which all parts then share.
    ///
    /// `None` where it is no such name: a number is not of five digits, or not from 1 to the count.
    pub fn parse(name: &'a str) -> Option<SplitName<'a>> {
        let (stem, _) = name.rsplit_once('.')?;
        let extension = &name[stem.len()..];
        let (head, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = head.rsplit_once('-')?;
        let split = SplitName {
            prefix,
            number: five_digits(number)?,
            count: five_digits(count)?,
            extension,
        };
        let valid = extension.eq_ignore_ascii_case(".gguf")
            && !prefix.is_empty()
            && !prefix.ends_with('/')
            && (1..=split.count).contains(&split.number);
        valid.then_some(split)
    }

    /// What all parts have before their number.
    pub fn prefix(&self) -> &'a str {
        self.prefix
    }

    /// Which part it is, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The number of parts.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The name of part `number`, from 1.
    pub fn name(&self, number: u32) -> String {
        let SplitName {
            prefix,
            count,
            extension,
            ..
        } = self;
        format!("{prefix}-{number:0DIGITS$}-of-{count:0DIGITS$}{extension}")
    }

    /// The names of all parts in order.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| self.name(number))
    }
}

fn five_digits(text: &str) -> Option<u32> {
    let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_gives_all() {
        let split = SplitName::parse("a/b-of-c-00002-of-00003.gguf").unwrap();
        assert_eq!(
            (split.prefix(), split.number(), split.count()),
            ("a/b-of-c", 2, 3)
        );
        let names: Vec<_> = split.names().collect();
        assert_eq!(names[0], "a/b-of-c-00001-of-00003.gguf");
        assert_eq!(names[2], "a/b-of-c-00003-of-00003.gguf");
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn what_is_no_part_is_none() {
        for name in [
            "m.gguf",
            "m-00001-of-00003",
            "m-00001-of-00003.bin",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-+0001-of-00003.gguf",
            "-00001-of-00003.gguf",
            "a/-00001-of-00003.gguf",
            "00001-of-00003.gguf",
        ] {
            assert_eq!(SplitName::parse(name), None, "{name}");
        }
    }
}
