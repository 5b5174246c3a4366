#!/usr/bin/env python3
"""Writes a tiny model of random weights that carries a chat template and knows how the values in its calls end.

By hand, not in CI:

    pip install gguf
    tests/tools/tiny_callers.py smollm2.gguf Qwen3-Coder.jinja tiny.gguf --close $'\\n</parameter>'
    tests/tools/tiny_callers.py smollm2.gguf gemma-4.jinja tiny.gguf --close '<|"|>' --tokens '<|"|>' '<|tool_call>'
    hyperion serve tiny.gguf --device cpu --port 8080
    tests/tools/tool_calls.py http://localhost:8080 functions.json --temperature 1

The vocabulary is that of the first file; `--tokens` gives the names of some of its control tokens to others. Whatever
the text before, the texts of `--close` and the ends of JSON's values are likely, and behind a token of a text of
`--close` its next one is. Without that a model of random weights never writes a text of several tokens, so that none of
its strings would end where such a text ends them.
"""

import argparse
import pathlib

import gguf
import numpy as np

WIDTH = 64
HEADS = 4
# What ends a string, a list, an object, a number.
ENDS = ['"', '",', '"}', "]", "}", ",", "\n"]
# Logits: of an end anywhere, and of the next token of a text.
LIKELY, CERTAIN = 8.0, 24.0


def spelled(text, vocabulary):
    """A text as tokens, each the longest that there is."""
    if text in vocabulary:
        return [vocabulary[text]]
    to_letters = gguf_bytes()
    letters = "".join(to_letters[byte] for byte in text.encode())
    tokens = []
    while letters:
        longest = max(n for n in range(1, len(letters) + 1) if letters[:n] in vocabulary)
        tokens.append(vocabulary[letters[:longest]])
        letters = letters[longest:]
    return tokens


def gguf_bytes():
    """The letters by which byte-level vocabularies spell bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def weights(n_vocabulary, texts, random):
    """Embeddings whose first part is the same for all, and an output that reads it and the token before."""
    embeddings = random.standard_normal((n_vocabulary, WIDTH)).astype(np.float32)
    embeddings[:, 0] = 8
    # What the norm makes of them.
    normed = embeddings / np.sqrt(np.mean(embeddings**2, axis=1, keepdims=True))
    output = random.standard_normal((n_vocabulary, WIDTH)).astype(np.float32) * 0.1
    output[:, 0] = 0
    for text in texts:
        output[text[0], 0] = LIKELY / normed[text[0], 0]
        for before, after in zip(text, text[1:]):
            own = normed[before, 1:]
            output[after, 1:] += CERTAIN * own / np.dot(own, own)
    return embeddings, output


def write(options, source, vocabulary):
    writer = gguf.GGUFWriter(options.out, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = source["tokenizer.ggml.tokens"]
    kinds = source["tokenizer.ggml.token_type"]
    control = [index for index, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    # The first ones are those that begin and end texts and turns.
    for name, index in zip(options.tokens, control[3:]):
        del vocabulary[tokens[index]]
        vocabulary[name], tokens[index] = index, name
    writer.add_tokenizer_model(source["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(source["tokenizer.ggml.pre"])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(source["tokenizer.ggml.merges"])
    writer.add_bos_token_id(source["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(source["tokenizer.ggml.eos_token_id"])
    writer.add_chat_template(pathlib.Path(options.template).read_text())
    texts = [spelled(text, vocabulary) for text in [*options.close, *ENDS]]
    random = np.random.default_rng(1)
    embeddings, output = weights(len(tokens), texts, random)
    nothing = np.zeros((WIDTH, WIDTH), np.float32)
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", nothing)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", help="a GGUF file with a byte-level vocabulary")
    parser.add_argument("template", help="a chat template")
    parser.add_argument("out")
    parser.add_argument("--close", nargs="*", default=[], metavar="TEXT", help="what ends a value of the template's form")
    parser.add_argument("--tokens", nargs="*", default=[], metavar="TEXT", help="markup that is one token each")
    options = parser.parse_args()
    reader = gguf.GGUFReader(options.vocabulary)
    source = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    vocabulary = {token: index for index, token in enumerate(source["tokenizer.ggml.tokens"])}
    write(options, source, vocabulary)


if __name__ == "__main__":
    main()
