//! Random numbers that follow from a seed and a position.

/// A random number from 0 to below 1 for the token behind position `position`: Philox 4x32 with ten rounds
/// (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") of the position under the seed as key. Of its
/// first word the upper 24 bits: every f32 of that spacing is equally likely.
pub fn uniform(seed: u64, position: u32) -> f32 {
    (philox([position, 0, 0, 0], [seed as u32, (seed >> 32) as u32])[0] >> 8) as f32
        / (1u32 << 24) as f32
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let wide = |a: u32, b: u32| {
            let product = u64::from(a) * u64::from(b);
            [product as u32, (product >> 32) as u32]
        };
        let (a, b) = (wide(0xd251_1f53, counter[0]), wide(0xcd9e_8d57, counter[2]));
        counter = [
            b[1] ^ counter[1] ^ key[0],
            b[0],
            a[1] ^ counter[3] ^ key[1],
            a[0],
        ];
        key = [
            key[0].wrapping_add(0x9e37_79b9),
            key[1].wrapping_add(0xbb67_ae85),
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library, Random123.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
