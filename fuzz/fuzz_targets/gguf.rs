//! Opens arbitrary bytes as a GGUF file and reads all that it then claims to hold.
#![no_main]

// The module alone: the engine around it takes minutes to instrument.
#[allow(dead_code, unused_imports)]
#[path = "../../host/gguf/mod.rs"]
mod gguf;

use gguf::{Gguf, Value, quant};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(bytes.to_vec()) else {
        return;
    };
    for (key, value) in gguf.metadata().iter() {
        assert!(gguf.metadata().get(key).is_some());
        std::hint::black_box(gguf.metadata().damage(key));
        if let Value::Array(array) = value {
            assert_eq!(array.get(array.len()), None);
        }
    }
    // Tensors may overlap, so that a small file can claim many times its size.
    for tensor in gguf.tensors().iter().take(16) {
        assert!(gguf.tensor(tensor.name()).is_some());
        let values = tensor.to_f32();
        assert_eq!(values.len(), tensor.n_elements());
        let row = tensor.row_bytes(tensor.n_rows() - 1);
        let ones = vec![1.0; tensor.row_len()];
        std::hint::black_box(quant::dot(tensor.ty(), row, &ones));
    }
});
