//! Models in several files.

use std::path::PathBuf;

use hyperion::gguf::{Gguf, Value};

use crate::support::fixture;
use crate::support::gguf_writer::GgufWriter;
use crate::{against, copy_of, fail, scratch, succeed, write};

fn names() -> [String; 3] {
    [1, 2, 3].map(|number| format!("split-{number:05}-of-00003.gguf"))
}

/// The parts, all of them unpacked.
fn parts() -> [PathBuf; 3] {
    names().map(|name| fixture(&format!("cases/{name}")))
}

/// The parts copied into a folder of their own.
fn copies(folder: &tempfile::TempDir) -> [PathBuf; 3] {
    let parts = parts();
    [0, 1, 2].map(|part| {
        let bytes = std::fs::read(&parts[part]).expect("a fixture");
        write(folder, &names()[part], &bytes)
    })
}

#[test]
fn any_part_opens_the_model() {
    let reference = fixture("cases/split-00001-of-00003.safetensors");
    for part in parts() {
        succeed(&against(&part, &reference, "cpu"));
        let gguf = Gguf::open(&part).expect("a whole model");
        assert_eq!(gguf.tensors().len(), 21);
        assert_eq!(gguf.parts(), parts());
        assert!(gguf.metadata().get("tokenizer.ggml.tokens").is_some());
    }
    let text = succeed(&["inspect".as_ref(), parts()[1].as_os_str()]);
    assert!(
        text.contains("21 tensors") && text.contains("00003-of-00003.gguf"),
        "{text}"
    );
}

#[test]
fn a_missing_part_is_named() {
    for missing in 0..3 {
        let scratch = scratch();
        let parts = copies(&scratch);
        std::fs::remove_file(&parts[missing]).expect("removed");
        for part in parts.iter().filter(|part| part.exists()) {
            let error = fail(&["inspect".as_ref(), part.as_os_str()]);
            assert!(
                error.contains("is missing") && error.contains(&names()[missing]),
                "{error}"
            );
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let scratch = scratch();
    let parts = copies(&scratch);
    let replace = |part: usize, change: fn(&mut GgufWriter)| {
        let mut model = copy_of(&format!("cases/{}", names()[part]));
        change(&mut model);
        std::fs::write(&parts[part], model.to_bytes()).expect("scratch file");
        let error = fail(&["inspect".as_ref(), parts[0].as_os_str()]);
        std::fs::copy(fixture(&format!("cases/{}", names()[part])), &parts[part]).expect("copied");
        error
    };
    // `copy_of` opens the whole model: each of these has all tensors.
    let error = replace(1, |model| model.tensors.truncate(3));
    assert!(error.contains("expected by its name"), "{error}");
    let error = replace(1, |model| model.set("split.no", Value::U16(1)));
    assert!(error.contains("split.tensors.count is 21"), "{error}");
    let error = replace(2, |model| {
        model.set("split.no", Value::U16(2));
        model.tensors.truncate(7);
    });
    assert!(error.contains("occurs twice"), "{error}");

    let renamed = scratch.path().join("part-two.gguf");
    std::fs::copy(&parts[1], &renamed).expect("copied");
    let error = fail(&["inspect".as_ref(), renamed.as_os_str()]);
    assert!(error.contains("NAME-00002-of-00003.gguf"), "{error}");
}
