//! What the parser gives for inspection, and what it refuses: with the place and the name.

mod common;

use common::{HEAD, Random, kernel};
use proptest::prelude::*;
use ptx_sim::{Module, ParseError, ParseErrorKind};

fn refuse(text: &str) -> ParseError {
    Module::parse(text).expect_err("the text is wrong")
}

#[test]
fn kernels_can_be_inspected() {
    let text = format!(
        "{HEAD}.extern .shared .align 16 .b8 dyn[];
        .visible .entry first(.param .u64 .ptr .global .align 16 p, .param .u32 n,
            .param .align 8 .b8 s[24], .param .u16 h)
        .maxntid 128, 2 .minnctapersm 2 {{
            .reg .b32 %r<9>; .reg .b64 %rd<4>; .reg .pred %p;
            .shared .align 8 .b8 tile[100];
            .local .align 4 .b8 __local_depot0[12];
            ld.param.u64 %rd1, [p]; setp.eq.u64 %p, %rd1, 0;
            @%p ld.global.v4.f32 {{%r1, %r2, %r3, %r4}}, [%rd1];
            mov.u32 %r5, tile; mov.u32 %r6, dyn; mov.u64 %rd2, __local_depot0;
            {{ call.uni helper, (); }}
            ret;
        }}
        .func helper() {{ ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let kernel = module.kernels().next().unwrap();
    assert_eq!((module.kernels().len(), kernel.name()), (1, "first"));
    let params: Vec<_> = kernel
        .params()
        .iter()
        .map(|p| (p.name.as_str(), p.size, p.align, p.offset))
        .collect();
    assert_eq!(
        params,
        [
            ("p", 8, 8, 0),
            ("n", 4, 4, 8),
            ("s", 24, 8, 16),
            ("h", 2, 2, 40)
        ]
    );
    assert_eq!(kernel.param_bytes(), 42);
    // The unsized array begins behind the sized one, at its own alignment.
    assert_eq!(kernel.static_shared_bytes(), 112);
    assert!(kernel.uses_dynamic_shared());
    assert_eq!(kernel.local_bytes(), 12);
    assert_eq!(kernel.callees(), ["helper"]);
    let bounds = kernel.function().launch_bounds();
    assert_eq!(
        (bounds.max_threads, bounds.min_blocks),
        (Some([128, 2, 1]), Some(2))
    );
    let load = kernel
        .instructions()
        .find(|i| i.opcode().starts_with("ld.global"))
        .unwrap();
    assert_eq!(load.opcode(), "ld.global.v4.f32");
    assert!(load.text().starts_with("@%p ld.global"));
    assert_eq!(load.line(), 12);
    assert_eq!(module.functions().next().unwrap().name(), "helper");
}

#[test]
fn unknown_instructions_are_named_with_their_line() {
    let error = refuse(&kernel("add.u32 %r1, %t, 1;\n  frobnicate.b32 %r1, %r2;"));
    assert_eq!(error.kind, ParseErrorKind::UnknownInstruction);
    assert_eq!((error.line, error.column), (11, 3));
    assert_eq!(error.token, "frobnicate.b32 %r1, %r2");
    assert!(error.to_string().contains("line 11"), "{error}");
    for unknown in [
        "add.rn.turbo.f32 %r1, %r2, %r3;",
        "wgmma.fence.sync.aligned;",
        "ld.global.u128 %r1, [%a];",
        "shfl.bfly.b32 %r1, %r2, 1, 31;",
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r1}, {%r2}, {%r3}, {%r4};",
        "min.u32.f32 %r1, %r2, %r3;",
    ] {
        let error = refuse(&kernel(unknown));
        assert!(
            matches!(
                error.kind,
                ParseErrorKind::UnknownInstruction | ParseErrorKind::Expected(_)
            ),
            "{unknown}: {error}"
        );
    }
    // Also where no kernel reaches.
    let error = refuse(&format!("{HEAD}.func lost() {{ frobnicate; }}"));
    assert_eq!(error.kind, ParseErrorKind::UnknownInstruction);
}

/// What has operands of a form of its own is named like any other instruction.
#[test]
fn instructions_on_textures_and_tensors_are_named() {
    for unknown in [
        "tex.1d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%a, {%r1}];",
        "tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}|%p1, [%a, %d, {%r1, %r2}];",
        "tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%a, {%r1, %r2}], {1, 2};",
        "tld4.r.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%a, {%r1, %r2}];",
        "txq.width.b32 %r1, [%a];",
        "suld.b.1d.b32.trap {%r1}, [%a, {%r1}];",
        "sust.b.2d.b32.trap [%a, {%r1, %r2}], {%r1};",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [%r1], [%a, {%r1, %r2}], [%r2];",
    ] {
        let error = refuse(&kernel(unknown));
        assert_eq!(
            error.kind,
            ParseErrorKind::UnknownInstruction,
            "{unknown}: {error}"
        );
        let name = unknown.split(' ').next().unwrap();
        assert!(error.token.starts_with(name), "{unknown}: {error}");
    }
    let error = refuse(include_str!("ptx/tex.ptx"));
    assert!(error.token.starts_with("tex.1d.v4.f32.f32 "), "{error}");
    let error = refuse(&kernel("ld.global.u32 %r1, [%a, {%r1}];"));
    assert!(matches!(error.kind, ParseErrorKind::Operand(_)), "{error}");
    let error = refuse(&format!("{HEAD}.global .texref image;"));
    assert_eq!(error.kind, ParseErrorKind::UnknownDirective);
    assert_eq!(error.token, ".texref");
}

#[test]
fn wrong_operands_and_names() {
    let kind = |body: &str| refuse(&kernel(body)).kind;
    assert_eq!(
        kind("bra $nowhere;"),
        ParseErrorKind::Operand("not a label".into())
    );
    assert_eq!(kind("add.u32 %r1, %r99, 1;"), ParseErrorKind::Undeclared);
    assert_eq!(kind("mov.u32 %r1, nothing;"), ParseErrorKind::Undeclared);
    assert_eq!(
        kind("@%r1 bra $x; $x:"),
        ParseErrorKind::Operand("not a predicate".into())
    );
    assert_eq!(kind("$x: $x:"), ParseErrorKind::Duplicate);
    for wrong in [
        "add.u32 %r1, %rd1, 1;",
        "add.u32 %r1, %r2;",
        "add.u64 %rd1, %r2, 1;",
        "ld.global.v4.u32 {%r1, %r2}, [%a];",
        "ld.global.u64 %r1, [%a];",
        "setp.eq.u32 %r1, %r2, %r3;",
        "cp.async.cg.shared.global [%r1], [%a], 4;",
        "st.global.u32 %r1, [%a];",
        "fma.rn.f32 %r1, %r2, %r3, 1;",
    ] {
        assert!(matches!(kind(wrong), ParseErrorKind::Operand(_)), "{wrong}");
    }
}

#[test]
fn calls_that_cannot_run() {
    let recursive = format!("{HEAD}.func f() {{ call.uni f, (); ret; }}");
    assert_eq!(
        refuse(&recursive).kind,
        ParseErrorKind::Call("recursion".into())
    );
    let external = format!(
        "{HEAD}.extern .func vprintf(.param .b64 a);
         .entry k() {{ .param .b64 x; call.uni vprintf, (x); ret; }}"
    );
    assert!(
        refuse(&external)
            .to_string()
            .contains("`vprintf` is declared and not defined")
    );
}

#[test]
fn structural_damage() {
    for text in [
        ".version",
        "x",
        ".entry",
        ".entry k(",
        ".entry k() {",
        ".entry k() { ret",
        ".entry k() { ret; } }",
        ".global .u32 x[4294967296];",
        ".global .align 3 .u32 x;",
        ".global .u32 x = {1, 2};",
        ".global .u32 x; .global .u32 x;",
        ".entry k() { .reg .b32 r; .reg .b32 r; ret; }",
        ".entry k() {} .entry k() {}",
        ".address_size 32",
        ".entry k(.param .b8 p[99999]) {}",
        "\u{0}",
        ".entry k() { .shared .b8 s[300000]; mov.u32 %r1, s; }",
    ] {
        assert!(Module::parse(text).is_err(), "{text}");
    }
    let deep = format!(".entry k() {{ {}", "{".repeat(10_000));
    assert!(matches!(refuse(&deep).kind, ParseErrorKind::Limit(_)));
    let deep = format!(".global .u32 x = {}", "{".repeat(10_000));
    assert!(matches!(refuse(&deep).kind, ParseErrorKind::Limit(_)));
    let many =
        format!("{HEAD}.entry k() {{ .reg .b32 %r<4000000000>; mov.u32 %r3999999999, 1; ret; }}");
    assert!(Module::parse(&many).is_ok());
}

const REAL: &str = include_str!("ptx/rustc.ptx");

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Damaged text parses or is refused; it never panics or hangs.
    #[test]
    fn damaged_text_never_panics(seed in any::<u64>(), edits in 1usize..12) {
        let mut random = Random(seed);
        let mut pick = |limit: usize| random.next() as usize % limit.max(1);
        // A window of the text keeps the cases quick.
        let lines: Vec<&str> = REAL.lines().collect();
        let start = pick(lines.len());
        let mut text: Vec<u8> =
            lines[start..(start + 60).min(lines.len())].join("\n").into_bytes();
        text.splice(0..0, HEAD.bytes());
        for _ in 0..edits {
            let at = pick(text.len());
            match pick(5) {
                0 => text[at] = b" {}()[],;:.@!|+-<>%$_0a\n"[pick(24)],
                1 => { text.remove(at); }
                2 => {
                    let end = (at + pick(40)).min(text.len());
                    let copy = text[at..end].to_vec();
                    let to = pick(text.len());
                    text.splice(to..to, copy);
                }
                3 => { text.drain(at..(at + pick(40)).min(text.len())); }
                _ => text[at] = pick(128) as u8,
            }
            if text.is_empty() {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        let _ = Module::parse(&text);
    }

    /// The whole module with one line damaged, which reaches the decoder more often.
    #[test]
    fn damaged_instructions_never_panic(seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut lines: Vec<String> = REAL.lines().map(str::to_owned).collect();
        for _ in 0..3 {
            let (from, to) = (random.next() as usize % lines.len(), random.next() as usize % lines.len());
            let words: Vec<String> = lines[from].split_inclusive(['.', ' ', ',']).map(str::to_owned).collect();
            let mut target: Vec<String> = lines[to].split_inclusive(['.', ' ', ',']).map(str::to_owned).collect();
            if !words.is_empty() && !target.is_empty() {
                let at = random.next() as usize % target.len();
                target[at] = words[random.next() as usize % words.len()].clone();
                lines[to] = target.concat();
            }
        }
        let _ = Module::parse(&lines.join("\n"));
    }
}
