//! What `argmax` and `sample` write: their tests hold it against what is here.

use kernels_gpu::abi::{ChoiceOutputs, DevicePtr, NOT_FINITE, NOTHING_ALLOWED, POSTED_ROWS};

use crate::harness::Case;

/// What was in the mailbox before.
const OLD: u32 = 12345;

/// The outputs of a case.
pub struct Outputs {
    pub params: ChoiceOutputs,
    /// What positions and turns must be.
    positions: Vec<u32>,
    turns: Vec<u32>,
    posted: Vec<u32>,
}

impl Outputs {
    /// For rows whose token is the step's of the same number: they move on.
    pub fn moving(case: &mut Case, positions: &[u32]) -> Self {
        let n = positions.len();
        // Not all of the rows are at the same turn.
        let turns: Vec<u32> = (0..n as u32).map(|row| row / 3 % 2).collect();
        let posted = vec![OLD; 2 * POSTED_ROWS as usize];
        Self {
            params: ChoiceOutputs {
                tokens: case.output("tokens", n),
                token_of_row: DevicePtr::NULL,
                positions: case.in_out("positions", positions),
                next_tokens: case.output("next tokens", n),
                turns: case.in_out("turns", &turns),
                posted: case.in_out("posted", &posted),
            },
            positions: positions.to_vec(),
            turns,
            posted,
        }
    }

    /// For rows of some of a step's tokens; only the tokens are written.
    pub fn of_tokens(case: &mut Case, token_of_row: &[u32], positions: &[u32]) -> Self {
        Self {
            params: ChoiceOutputs {
                tokens: case.output("tokens", token_of_row.len()),
                token_of_row: case.input("token of row", token_of_row),
                positions: case.input("positions", positions),
                next_tokens: DevicePtr::NULL,
                turns: DevicePtr::NULL,
                posted: DevicePtr::NULL,
            },
            positions: Vec::new(),
            turns: Vec::new(),
            posted: Vec::new(),
        }
    }

    /// The tokens after one more launch; everything else must follow from them.
    pub fn tokens(&mut self, case: &Case) -> Vec<u32> {
        let tokens = case.read(self.params.tokens);
        if self.params.next_tokens.is_null() {
            return tokens;
        }
        for (row, &token) in tokens.iter().enumerate() {
            self.posted[(self.turns[row] * POSTED_ROWS) as usize + row] = token;
            self.turns[row] ^= 1;
            self.positions[row] += 1;
        }
        assert_eq!(case.read(self.params.posted), self.posted);
        assert_eq!(case.read(self.params.turns), self.turns);
        assert_eq!(case.read(self.params.positions), self.positions);
        // A token in any case: the step that follows reads its embedding.
        let next: Vec<u32> = tokens
            .iter()
            .map(|&token| match token {
                NOT_FINITE | NOTHING_ALLOWED => 0,
                token => token,
            })
            .collect();
        assert_eq!(case.read(self.params.next_tokens), next);
        tokens
    }
}
