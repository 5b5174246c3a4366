//! One integer instruction against plain Rust, on edge cases among random words.

use super::{Random, run};

/// Edge cases among random words.
pub fn inputs(count: usize, seed: u64) -> Vec<u32> {
    let edges = [
        0,
        1,
        2,
        31,
        32,
        33,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            if i % 3 == 0 {
                edges[random.next() as usize % edges.len()]
            } else {
                random.next()
            }
        })
        .collect()
}

/// Threads of a check.
pub const THREADS: usize = 96;

/// Runs one instruction over three input words a thread and compares with `expected`.
pub fn check(instruction: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let input = inputs(THREADS * 3, 0x5eed);
    let body = format!(
        "ld.global.u32 %r1, [%a]; ld.global.u32 %r2, [%a+384]; ld.global.u32 %r3, [%a+768];
         {instruction}
         st.global.u32 [%d], %r0;"
    );
    let got = run(&body, THREADS as u32, &input, THREADS).unwrap_or_else(|fault| panic!("{fault}"));
    for i in 0..THREADS {
        let (a, b, c) = (input[i], input[i + 96], input[i + 192]);
        let expected = expected(a, b, c);
        assert_eq!(got[i], expected, "{instruction} of {a:#x} {b:#x} {c:#x}");
    }
}

/// The same on 64 bits made of two words: `%rd1`, `%rd2` to `%rd0`.
pub fn check64(instruction: &str, expected: impl Fn(u64, u64) -> u64) {
    let input = inputs(THREADS * 4, 0x1dea);
    let body = format!(
        "ld.global.u32 %r1, [%a]; ld.global.u32 %r2, [%a+384];
         ld.global.u32 %r3, [%a+768]; ld.global.u32 %r4, [%a+1152];
         mov.b64 %rd1, {{%r1, %r2}}; mov.b64 %rd2, {{%r3, %r4}};
         {instruction}
         mov.b64 {{%r5, %r6}}, %rd0;
         st.global.u32 [%d], %r5; st.global.u32 [%d+384], %r6;"
    );
    let got = run(&body, THREADS as u32, &input, THREADS * 2).unwrap_or_else(|f| panic!("{f}"));
    for i in 0..THREADS {
        let word = |at: usize| u64::from(input[i + at * 96]);
        let (a, b) = (word(0) | word(1) << 32, word(2) | word(3) << 32);
        let result = u64::from(got[i]) | u64::from(got[i + 96]) << 32;
        assert_eq!(result, expected(a, b), "{instruction} of {a:#x} {b:#x}");
    }
}

pub fn s(x: u32) -> i32 {
    x.cast_signed()
}
