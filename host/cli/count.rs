//! Numbers of things on the command line.

use std::ops::RangeInclusive;

use clap::builder::RangedI64ValueParser;

/// More of anything than there is room for.
pub const MOST: i64 = u32::MAX as i64;

/// Reads a number of things within `range`. The error of any other whole number, also a negative one, tells the range.
pub fn count(range: RangeInclusive<i64>) -> RangedI64ValueParser<usize> {
    RangedI64ValueParser::new().range(range)
}

/// Reads a number of tokens; -1 is all there are.
pub fn count_or_all() -> RangedI64ValueParser {
    RangedI64ValueParser::new().range(-1..=MOST)
}
