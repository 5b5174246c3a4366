//! Tests of `ops/gather_tokens.rs`.

use kernels_gpu::abi::{
    GATHER_THREADS, GatherTokensParams, NO_SOURCE, NOT_FINITE, NOTHING_ALLOWED,
};
use kernels_gpu::ops::gather_tokens::GATHER_TOKENS;

use crate::harness::{Case, Random, Shape};

#[test]
fn tokens_of_an_earlier_step() {
    for (count, rows) in [(1, 1), (1, 256), (31, 5), (64, 64), (255, 256), (256, 256)] {
        let mut random = Random::new(count as u64);
        let chosen: Vec<u32> = (0..rows)
            .map(|row| match row % 7 {
                3 => NOT_FINITE,
                5 => NOTHING_ALLOWED,
                _ => random.below(1 << 18) as u32,
            })
            .collect();
        let sources: Vec<u32> = (0..count)
            .map(|_| match random.below(3) {
                0 => NO_SOURCE,
                _ => random.below(rows) as u32,
            })
            .collect();
        let tokens: Vec<u32> = (0..count).map(|_| random.bits() as u32).collect();
        let mut case = Case::new(format!("gather, {count} tokens of {rows} rows"));
        // Behind the last one there is nothing to change.
        let found = case.in_out("tokens", &tokens);
        let params = GatherTokensParams {
            tokens: found,
            sources: case.input("sources", &sources),
            chosen: case.input("chosen", &chosen),
            count: count as u32,
            reserved: 0,
        };
        case.launch(
            &GATHER_TOKENS,
            Shape::new([1, 1, 1], GATHER_THREADS),
            params,
        );
        let expected: Vec<u32> = tokens
            .iter()
            .zip(&sources)
            .map(|(&token, &source)| match source {
                NO_SOURCE => token,
                source => match chosen[source as usize] {
                    NOT_FINITE | NOTHING_ALLOWED => 0,
                    chosen => chosen,
                },
            })
            .collect();
        assert_eq!(case.read(found), expected);
    }
}
