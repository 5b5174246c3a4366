use super::*;

fn entry(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(\n\t.param .align 8 .b8 {name}_param_0[48]\n)\n{{\n{body}\tret;\n\n}}\n"
    )
}

#[test]
fn launch_bounds_follow_the_parameter_list() {
    let ptx = format!(
        ".version 7.8\n// cuda_std kernel k: maxntid=256 minnctapersm=2\n\n{}{}",
        entry("k", ""),
        entry("unbounded", "")
    );
    let finished = finish(&ptx).unwrap();
    assert!(
        finished.contains("_param_0[48]\n)\n.maxntid 256\n.minnctapersm 2\n{\n\tret;"),
        "{finished}"
    );
    assert!(
        finished.contains("unbounded_param_0[48]\n)\n{"),
        "{finished}"
    );
    assert!(!finished.contains("cuda_std kernel"), "{finished}");
}

#[test]
fn bad_launch_bounds_are_errors() {
    let of = |comment: &str| finish(&format!("{comment}\n{}", entry("k", ""))).unwrap_err();
    assert_eq!(
        of("// cuda_std kernel other: maxntid=256"),
        PtxError::NoSuchKernel("other".to_owned())
    );
    for comment in [
        "// cuda_std kernel k: maxntid=0",
        "// cuda_std kernel k: maxntid=many",
        "// cuda_std kernel k: unknown=1",
        "// cuda_std kernel k",
    ] {
        assert_eq!(
            of(comment),
            PtxError::BadBounds {
                line: 1,
                text: comment.to_owned()
            }
        );
    }
}

#[test]
fn generic_accesses_become_global_ones() {
    let body = "\tld.b32 \t%r1, [%rd1];\n\
                \t@%p1 st.v4.b32 \t[%rd2+16], {%r1, %r1, %r1, %r1};\n\
                \tld.param.b64 \t%rd1, [k_param_0];\n\
                \tld.shared.f32 %r2, [%r3];\n\
                \tld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];\n\
                \tld.volatile.b32 \t%r1, [%rd1];\n";
    let expected = "\tld.global.b32 \t%r1, [%rd1];\n\
                    \t@%p1 st.global.v4.b32 \t[%rd2+16], {%r1, %r1, %r1, %r1};\n\
                    \tld.param.b64 \t%rd1, [k_param_0];\n\
                    \tld.shared.f32 %r2, [%r3];\n\
                    \tld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];\n\
                    \tld.volatile.b32 \t%r1, [%rd1];\n";
    assert_eq!(finish(&entry("k", body)).unwrap(), entry("k", expected));
}

#[test]
fn accesses_stay_generic_where_an_address_may_be_another() {
    for other in [
        "\tcvta.local.u64 \t%SP, %SPL;\n",
        "\t{ .reg .b64 wide; cvt.u64.u32 wide, %r1; cvta.shared.u64 %rd1, wide; }\n",
        "\tcall.uni helper, ();\n",
    ] {
        let with = entry("k", &format!("{other}\tld.b32 \t%r1, [%rd1];\n"));
        assert_eq!(finish(&with).unwrap(), with);
    }
    let both = entry(
        "a",
        "\tcvta.local.u64 \t%SP, %SPL;\n\tld.b32 \t%r1, [%rd1];\n",
    ) + &entry("b", "\tld.b32 \t%r1, [%rd1];\n");
    assert_eq!(finish(&both).unwrap().matches("ld.global").count(), 1);
}

#[test]
fn functions_outside_entries_are_left_alone() {
    let function = ".func helper()\n{\n\tld.b32 \t%r1, [%rd1];\n\tret;\n}\n";
    assert_eq!(finish(function).unwrap(), function);
}

#[test]
fn a_cut_off_module_is_an_error() {
    let whole = entry("k", "");
    let cut = &whole[..whole.len() - 3];
    assert_eq!(
        finish(cut),
        Err(PtxError::Unfinished {
            line: 1,
            name: "k".to_owned()
        })
    );
    assert!(entries(".visible .entry k(\n").is_err());
}

#[test]
fn the_table_lists_kernels_with_their_parameters() {
    let ptx = finish(&format!(
        "// cuda_std kernel a: maxntid=128\n{}.visible .entry b(\n\t.param .b64 b_param_0,\n\t.param .b32 b_param_1\n)\n{{\n}}\n",
        entry("a", "")
    ))
    .unwrap();
    assert_eq!(
        entries(&ptx).unwrap(),
        [
            Entry {
                name: "a".to_owned(),
                param_bytes: vec![48],
                max_threads: Some(128)
            },
            Entry {
                name: "b".to_owned(),
                param_bytes: vec![8, 4],
                max_threads: None
            },
        ]
    );
}
