#!/usr/bin/env python3
"""Writes tests/fixtures/families: tiny random models of the families below, and what llama.cpp computes for them.

    pip install gguf==0.19.0 xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11739
    tests/tools/family_references.py [NAME...]

xllamacpp brings llama.cpp as a library for old systems too, llama-cpp-py-sync the declarations of its functions.
llama.cpp gets the same weights expanded to F32, keeps F32 keys and values and uses no flash attention. The same
specification gives the same bytes. Run by hand, when a family is added or a specification changes.
"""
import ctypes
import json
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType as Q
from llama_cpp_py_sync import _cffi_bindings as declarations

LIBRARY = str(Path(xllamacpp.__file__).parent / "xllamacpp.abi3.so")
GGML = ctypes.CDLL(LIBRARY)
GGML.ggml_quantize_chunk.restype = GGML.ggml_nbytes.restype = ctypes.c_size_t
GGML.ggml_get_name.restype = ctypes.c_char_p
FOLDER = Path(__file__).parent.parent / "fixtures/families"
N_TOKENS = 300
# Rows of the references: both sides of page borders and of windows, and the last.
POSITIONS = [0, 1, 47, 63, 64, 127, 128, 200, 255, 256, 299]
N_GREEDY = 24


@dataclass
class Spec:
    arch: str
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head: int
    types: list  # of matrices, in turn
    down_types: list  # of ffn_down, whose rows may be whole K-quant blocks
    vocab: int = 288
    tied: bool = True
    eps: float = 1e-5
    rope_base: float = 10_000.0
    rotated: int = 0
    contexts: list = field(default_factory=lambda: [512])  # llama.cpp's, a reference each
    keys: dict = field(default_factory=dict)
    experts: int = 0
    used: int = 0
    shared: int = 0  # elements inside of the network that all tokens take; `ffn` is then an expert's


def yarn(factor, original):
    return {"rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.original_context_length": original}


GRANITE = {"embedding_scale": 6.0, "attention.scale": 0.05, "residual_scale": 0.22, "logit_scale": 3.0}
SPECS = {
    "granite-mixed": Spec("granite", 3, 96, 160, 3, 1, 32, [Q.Q4_0, Q.Q8_0, Q.Q5_0, Q.F16], [Q.Q5_1], tied=False, keys=GRANITE),
    "granite-q8_0": Spec("granite", 2, 128, 256, 2, 2, 64, [Q.Q8_0], [Q.Q6_K], tied=False, keys={
        "embedding_scale": 12.0, "attention.scale": 0.0078125, "residual_scale": 1.7, "logit_scale": 0.4}),
    "granite-no-rope": Spec("granite", 2, 64, 96, 2, 1, 32, [Q.Q8_0], [Q.Q8_0], keys={
        **GRANITE, "rope.scaling.finetuned": False}),
    "smollm3-mixed": Spec("smollm3", 5, 96, 160, 3, 1, 32, [Q.Q5_0, Q.Q4_1, Q.Q8_0], [Q.IQ4_NL]),
    "smollm3-q4_0": Spec("smollm3", 4, 96, 256, 2, 2, 64, [Q.Q4_0], [Q.Q4_K], tied=False, rope_base=5e5),
    "phi3-mixed": Spec("phi3", 3, 96, 160, 3, 1, 32, [Q.Q8_0, Q.Q5_1], [Q.Q4_0], rotated=24, contexts=[256, 512], keys={
        "rope.scaling.original_context_length": 400, "rope.scaling.attn_factor": 1.19, "attention.sliding_window": 0}),
    "phi3-q4_1": Spec("phi3", 2, 128, 256, 2, 2, 64, [Q.Q4_1], [Q.Q5_K], tied=False, keys={
        "rope.scaling.original_context_length": 4096}),
    "olmo2-mixed": Spec("olmo2", 3, 96, 160, 3, 3, 32, [Q.Q4_0, Q.Q8_0, Q.F16], [Q.Q5_0], tied=False),
    "olmo2-gqa": Spec("olmo2", 2, 128, 256, 4, 2, 32, [Q.Q8_0], [Q.Q3_K], tied=False, eps=1e-6, rope_base=5e5),
    "olmo2-windows": Spec("olmo2", 5, 64, 96, 2, 1, 32, [Q.Q8_0], [Q.Q8_0], tied=False, rope_base=5e5, keys={
        "attention.sliding_window": 48, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128, "rope.scaling.attn_factor": 1.1}),
    "qwen3moe-mixed": Spec("qwen3moe", 2, 96, 32, 3, 1, 32, [Q.Q4_0, Q.Q8_0, Q.Q5_0, Q.F16], [Q.Q5_1], experts=5, used=2),
    "qwen3moe-one": Spec("qwen3moe", 3, 64, 32, 2, 1, 32, [Q.Q8_0], [Q.Q4_1], experts=6, used=1, rope_base=1e6),
    "qwen2moe-mixed": Spec("qwen2moe", 2, 64, 32, 2, 1, 32, [Q.Q5_0, Q.Q8_0, Q.IQ4_NL], [Q.Q4_0], tied=False, experts=6,
                           used=4, shared=96),
    "qwen2moe-all": Spec("qwen2moe", 2, 64, 64, 2, 2, 32, [Q.Q4_1], [Q.MXFP4], tied=False, experts=3, used=3, shared=64),
    "mixtral-mixed": Spec("llama", 2, 64, 256, 2, 1, 32, [Q.Q4_0, Q.Q5_1], [Q.Q3_K, Q.Q2_K], experts=3, used=2),
    "mixtral-all": Spec("llama", 2, 64, 32, 2, 2, 32, [Q.Q8_0, Q.BF16], [Q.Q8_0], tied=False, experts=5, used=5),
    "mistral3-mixed": Spec("mistral3", 3, 96, 96, 3, 1, 32, [Q.Q4_0, Q.Q8_0, Q.Q5_0], [Q.Q5_1], keys={
        **yarn(8.0, 64), "rope.scaling.yarn_beta_fast": 4.0, "rope.scaling.yarn_beta_slow": 0.5,
        "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.4}),
    "mistral3-q8_0": Spec("mistral3", 2, 64, 96, 3, 1, 32, [Q.Q8_0], [Q.Q4_1], tied=False, rope_base=1e6, keys={
        **yarn(16.0, 100), "rope.scaling.yarn_log_multiplier": 0.5, "rope.scaling.attn_factor": 1.1,
        "attention.temperature_scale": 0.1}),
    "mistral3-experts": Spec("mistral3", 2, 64, 32, 2, 2, 32, [Q.Q5_0], [Q.Q8_0], experts=3, used=3, keys={
        **yarn(48.0, 32), "attention.temperature_scale": 0.2}),
    "llama-yarn": Spec("llama", 1, 64, 96, 2, 1, 32, [Q.Q4_0], [Q.Q4_1], keys=yarn(4.0, 128)),
    "qwen3-yarn": Spec("qwen3", 1, 64, 96, 2, 1, 32, [Q.Q4_1], [Q.Q4_0], rope_base=1e6, keys={
        **yarn(2.5, 96), "rope.scaling.attn_factor": 0.9}),
}


def byte_vocabulary():
    """The 256 printable stand-ins that byte-level BPE gives the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class Model:
    """The tensors of a specification, and the files with them."""

    def __init__(self, name, spec):
        self.name, self.spec, self.tensors, self.n_matrices = name, spec, [], 0
        self.rng = np.random.default_rng(list(name.encode()))
        s = spec
        q, kv = s.heads * s.head, s.kv_heads * s.head
        self.matrix("token_embd", s.vocab, s.width, deviation=0.5 if s.arch == "olmo2" else 0.1)
        self.vector("output_norm", s.width)
        if not s.tied:
            self.matrix("output", s.vocab, s.width)
        if s.arch == "phi3":
            for kind, most in (("short", 1.5), ("long", 40.0)):
                factors = np.geomspace(1.0, most, s.rotated // 2 or s.head // 2)
                self.tensors.append((f"rope_factors_{kind}.weight", factors.astype(np.float32), Q.F32))
        for i in range(s.layers):
            block = f"blk.{i}."
            if s.arch == "olmo2":
                norms = {"attn_q_norm": q, "attn_k_norm": kv, "post_attention_norm": s.width, "post_ffw_norm": s.width}
            else:
                norms = {"attn_norm": s.width, "ffn_norm": s.width}
            if s.arch in ("qwen3", "qwen3moe"):
                norms |= {"attn_q_norm": s.head, "attn_k_norm": s.head}
            for norm, n in norms.items():
                self.vector(block + norm, n)
            if s.arch == "phi3":
                self.matrix(block + "attn_qkv", q + 2 * kv, s.width)
                self.matrix(block + "ffn_up", 2 * s.ffn, s.width)
            else:
                for part, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
                    self.matrix(block + part, rows, s.width)
                    if s.arch == "qwen2moe":
                        self.vector(block + part, rows, ".bias", mean=0.0)
            down = s.down_types[i % len(s.down_types)]
            if s.experts:
                self.matrix(block + "attn_output", s.width, q)
                self.experts(block, down)
                continue
            if s.arch != "phi3":
                self.matrix(block + "ffn_gate", s.ffn, s.width)
                self.matrix(block + "ffn_up", s.ffn, s.width)
            self.matrix(block + "attn_output", s.width, q)
            self.matrix(block + "ffn_down", s.width, s.ffn, kind=down)

    def experts(self, block, down):
        s = self.spec
        self.matrix(block + "ffn_gate_inp", s.experts, s.width, kind=Q.F32)
        for part, rows, row, kind in (("gate", s.ffn, s.width, None), ("up", s.ffn, s.width, None), ("down", s.width, s.ffn, down)):
            self.matrix(f"{block}ffn_{part}_exps", rows, row, kind=kind, count=s.experts)
        if s.shared:
            self.vector(block + "ffn_gate_inp_shexp", s.width, mean=0.0)
            for part, rows, row in (("gate", s.shared, s.width), ("up", s.shared, s.width), ("down", s.width, s.shared)):
                self.matrix(f"{block}ffn_{part}_shexp", rows, row)

    def matrix(self, name, rows, row, deviation=None, kind=None, count=None):
        """One matrix, or `count` of them in one tensor."""
        if kind is None:
            kind = self.spec.types[self.n_matrices % len(self.spec.types)]
        self.n_matrices += 1
        values = self.rng.standard_normal(((count or 1) * rows, row)) * (deviation or 1.0 / np.sqrt(row))
        values = self.quantized(values.astype(np.float32), kind)
        if count:
            values = values.reshape(count, rows, -1)
        self.tensors.append((name + ".weight", values, kind))

    def quantized(self, values, kind):
        if kind == Q.F32:
            return values
        if kind == Q.F16:
            return values.astype(np.float16)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows, row = values.shape
        out = np.zeros((rows, row // block * size), np.uint8)
        pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)
        written = GGML.ggml_quantize_chunk(
            ctypes.c_int(kind), pointer(values), pointer(out), ctypes.c_int64(0), ctypes.c_int64(rows),
            ctypes.c_int64(row), None)
        assert written == out.nbytes, (kind, written, out.nbytes)
        return out

    def vector(self, name, n, part=".weight", mean=1.0):
        values = mean + 0.2 * self.rng.standard_normal(n)
        self.tensors.append((name + part, values.astype(np.float32), Q.F32))

    def write(self, path, expanded=False):
        """Writes the file, with all weights as F32 where they are to be `expanded`."""
        s = self.spec
        file = gguf.GGUFWriter(path, s.arch)
        # llama.cpp expects some names to come with some tokens.
        file.add_name("tiny")
        file.add_block_count(s.layers)
        file.add_context_length(4096)
        file.add_embedding_length(s.width)
        file.add_feed_forward_length(s.ffn)
        if s.experts:
            file.add_expert_count(s.experts)
            file.add_expert_used_count(s.used)
            if s.arch not in ("llama", "mistral3"):
                file.add_expert_feed_forward_length(s.ffn)
        if s.shared:
            file.add_expert_shared_feed_forward_length(s.shared)
        file.add_head_count(s.heads)
        file.add_head_count_kv(s.kv_heads)
        if s.heads * s.head != s.width:
            file.add_key_length(s.head)
            file.add_value_length(s.head)
        file.add_rope_freq_base(s.rope_base)
        file.add_rope_dimension_count(s.rotated or s.head)
        file.add_layer_norm_rms_eps(s.eps)
        add = {bool: file.add_bool, int: file.add_uint32, float: file.add_float32, str: file.add_string}
        for key, value in s.keys.items():
            add[type(value)](f"{s.arch}.{key}", value)
        letters = byte_vocabulary()
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre({
            "granite": "refact", "smollm3": "smaug-bpe", "phi3": "dbrx", "olmo2": "olmo", "llama": "llama-bpe",
            "mistral3": "tekken"
        }.get(s.arch, "qwen2"))
        others = [f"<t{i}>" for i in range(s.vocab - 258)]
        file.add_token_list(letters + others + ["<|endoftext|>", "<|im_end|>"])
        file.add_token_types([1] * (s.vocab - 2) + [3, 3])
        file.add_token_merges([f"{letters[ord('h')]} {letters[ord('e')]}"])
        file.add_bos_token_id(s.vocab - 2)
        file.add_eos_token_id(s.vocab - 1)
        file.add_add_bos_token(False)
        for name, values, kind in self.tensors:
            if expanded:
                file.add_tensor(name, gguf.quants.dequantize(values, kind).astype(np.float32))
            else:
                file.add_tensor(name, values, raw_dtype=kind)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
        file.close()


class Reference:
    """llama.cpp with a file whose weights are F32."""

    def __init__(self, path, context):
        self.ffi, self.lib = declarations.get_ffi(), declarations.get_ffi().dlopen(LIBRARY)
        self.tensors = {}
        self.silence = self.ffi.callback("void(enum ggml_log_level, const char *, void *)", lambda *_: None)
        self.lib.llama_log_set(self.silence, self.ffi.NULL)
        self.lib.llama_backend_init()

        def observe(tensor, ask, _):
            pointer = ctypes.c_void_p(int(self.ffi.cast("uintptr_t", tensor)))
            name = GGML.ggml_get_name(pointer).decode()
            if not name.startswith("l_out-"):
                return not ask
            if not ask:
                values = np.empty(GGML.ggml_nbytes(pointer) // 4, np.float32)
                GGML.ggml_backend_tensor_get(
                    pointer, values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(0), ctypes.c_size_t(values.nbytes))
                self.tensors[name] = values
            return True

        self.observe = self.ffi.callback("bool(struct ggml_tensor *, bool, void *)", observe)
        params = self.lib.llama_model_default_params()
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads, params.n_threads_batch = context, 512, 512, 1, 1
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        params.cb_eval = self.observe
        self.context = self.lib.llama_init_from_model(self.model, params)
        assert self.context, f"no context for {path}"
        self.vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))

    def forward(self, tokens, start):
        """The logits of all `tokens`, the first of which is at `start`."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), start + i, 1, 1
            batch.seq_id[i][0] = 0
        assert self.lib.llama_decode(self.context, batch) == 0
        logits = self.lib.llama_get_logits(self.context)
        bytes = self.ffi.buffer(logits, 4 * len(tokens) * self.vocab)
        self.lib.llama_batch_free(batch)
        return np.frombuffer(bytes, np.float32).reshape(len(tokens), self.vocab).copy()


def reference(path, spec, context):
    """What a session of `context` tokens computes."""
    n = min(N_TOKENS, context - N_GREEDY)
    tokens = [(37 * i + i // 7 * 11 + 5) % 256 for i in range(n)]
    session = Reference(path, context)
    logits = session.forward(tokens, 0)
    rows = [position for position in POSITIONS if position < n - 1] + [n - 1]
    found = {"tokens": np.array(tokens, np.int32), "positions": np.array(rows, np.int32)}
    found["context"] = np.array([context], np.int32)
    found["logits"] = logits[rows]
    for name, values in list(session.tensors.items()):
        found[name] = values.reshape(n, -1)[rows]
    assert {f"l_out-{i}" for i in range(spec.layers)} < found.keys(), found.keys()
    greedy, gaps, last = [], [], logits[-1]
    for i in range(N_GREEDY):
        second, best = np.argsort(last)[-2:]
        greedy.append(best)
        gaps.append(last[best] - last[second])
        last = session.forward([best], n + i)[-1]
    found["greedy"], found["greedy_gap"] = np.array(greedy, np.int32), np.array(gaps, np.float32)
    return found


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in sorted(tensors.items()):
        kind = {"float32": "F32", "int32": "I32"}[values.dtype.name]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SPECS:
        spec = SPECS[name]
        model = Model(name, spec)
        model.write(FOLDER / f"{name}.gguf")
        with tempfile.TemporaryDirectory() as folder:
            expanded = Path(folder) / "f32.gguf"
            model.write(expanded, expanded=True)
            for context in spec.contexts:
                found = reference(expanded, spec, context)
                write_safetensors(FOLDER / f"{name}-{context}.safetensors", found)
                gap, size = np.median(found["greedy_gap"]), np.linalg.norm(found["logits"]) / found["logits"].size ** 0.5
                print(f"{name}, context {context}: logits of {size:.2f}, median gap {gap:.3f}")


main()
