//! Looking up the entries of a list by name.

/// The places of a list's entries in the order of their names: four bytes an entry, where a hash map
/// would hold the names again.
#[derive(Debug, Default)]
pub(super) struct NameIndex(Vec<u32>);

impl NameIndex {
    /// Indexes `len` entries; `Err` holds the place of one whose name another has too.
    pub(super) fn new<'a>(len: usize, name: impl Fn(usize) -> &'a str) -> Result<Self, usize> {
        let mut places: Vec<u32> = (0..len)
            .map(|i| u32::try_from(i).expect("fewer than 2^32 entries"))
            .collect();
        places.sort_unstable_by_key(|&i| (name(i as usize), i));
        match places
            .windows(2)
            .find(|pair| name(pair[0] as usize) == name(pair[1] as usize))
        {
            Some(pair) => Err(pair[1] as usize),
            None => Ok(NameIndex(places)),
        }
    }

    /// The place of the entry called `wanted`; `name` as it was given to [`NameIndex::new`].
    pub(super) fn find<'a>(&self, wanted: &str, name: impl Fn(usize) -> &'a str) -> Option<usize> {
        let found = self
            .0
            .binary_search_by(|&i| name(i as usize).cmp(wanted))
            .ok()?;
        Some(self.0[found] as usize)
    }
}
