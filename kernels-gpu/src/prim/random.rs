//! Random numbers that follow from a seed and a position, the same on the host and on the device.

/// A random number from 0 to below 1 for the token behind position `position`: Philox 4x32 with ten rounds
/// (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") of the position under the seed as key. Of its
/// first word the upper 24 bits: every f32 of that spacing is equally likely.
///
/// The position is that of the token whose successor is drawn, so that a text has the same numbers in any batch, and
/// when it is computed again.
#[inline(always)]
pub const fn uniform(seed: u64, position: u32) -> f32 {
    let words = philox([position, 0, 0, 0], [seed as u32, (seed >> 32) as u32]);
    (words[0] >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

/// Philox 4x32-10: four words for a counter of four and a key of two.
#[inline(always)]
const fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < 10 {
        let a = 0xd251_1f53 * counter[0] as u64;
        let b = 0xcd9e_8d57 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [
            key[0].wrapping_add(0x9e37_79b9),
            key[1].wrapping_add(0xbb67_ae85),
        ];
        round += 1;
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library, Random123.
    #[test]
    fn philox_gives_the_known_answers() {
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn numbers_are_24_bits_of_the_first_word() {
        assert_eq!(uniform(0, 0), 0x66_27e8 as f32 / 16_777_216.0);
        let mut sum = 0.0;
        for position in 0..10_000 {
            let number = uniform(0x0123_4567_89ab_cdef, position);
            assert!((0.0..1.0).contains(&number), "{number} at {position}");
            sum += f64::from(number);
        }
        // The mean of as many has a standard deviation of 0.0029.
        assert!((sum / 10_000.0 - 0.5).abs() < 0.01, "{sum}");
        assert_ne!(uniform(1, 0), uniform(1 << 32, 0));
        assert_ne!(uniform(1, 0), uniform(1, 1));
    }
}
