#!/usr/bin/env python3
"""Asks `hyperion serve` and llama.cpp's server the same, on the same file, and tells the differences.

By hand, not in CI; llama.cpp's server comes in a package from PyPI:

    pip install xllamacpp==2026.10.11549
    tests/tools/beside_llama.py target/release/hyperion MODEL.gguf [THEIRS.gguf]

Greedy texts must be equal, or part where our likeliest tokens are almost equally probable: the exit code
is 1 where they do not. Ours is the reference. THEIRS may have the same weights in F32: with quantized weights
llama.cpp rounds activations to 8 bits, which the reference does not. Then come the status codes and the fields that differ,
which is for reading: `docs/serving.md` has the outcome.
"""

import json
import sys

import serving
from serving import ask

# Between log-probabilities, where activations are rounded to 8 bits or not, and where neither is.
GAP, GAP_OF_F32 = 0.5, 0.01
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a king who",
    "def fibonacci(n):\n",
    "Water boils at",
    "1, 2, 3, 4, 5,",
    "Dear Sir or Madam,",
    "La maison est",
    "The three laws of motion are",
]
LLAMA = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.port = 2048, 1, int(sys.argv[2])
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
params.use_jinja, params.embedding, params.model_alias = True, False, "m"
server = xllamacpp.Server(params)
print("ready at", server.listening_address, flush=True)
threading.Event().wait()
"""
USER = [{"role": "user", "content": "Name a river."}]
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
TOOLS = [{"type": "function", "function": TOOL}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat(**more):
    return {"messages": USER, "max_tokens": 4, "temperature": 0, **more}


def text(**more):
    return {"prompt": "Hello", "max_tokens": 4, "temperature": 0, **more}


# What is asked: a name, a path, and a body unless it is a GET.
CASES = [
    ("chat", CHAT, chat()),
    ("logprobs", CHAT, chat(logprobs=True, top_logprobs=2)),
    ("top_logprobs 0", CHAT, chat(logprobs=True, top_logprobs=0)),
    ("top_logprobs without logprobs", CHAT, chat(top_logprobs=2)),
    ("n 2", CHAT, chat(n=2)),
    ("n of a wrong type", CHAT, chat(n="two")),
    ("n 0", CHAT, chat(n=0)),
    ("temperature -1", CHAT, chat(temperature=-1)),
    ("top_p 2", CHAT, chat(top_p=2)),
    ("min_p of a wrong type", CHAT, chat(min_p="x")),
    ("max_tokens of a wrong type", CHAT, chat(max_tokens="x")),
    ("max_tokens 0", CHAT, chat(max_tokens=0)),
    ("unknown field", CHAT, chat(unheard_of=1)),
    ("modalities with audio", CHAT, chat(modalities=["audio"])),
    ("no messages", CHAT, {"max_tokens": 4}),
    ("empty messages", CHAT, chat(messages=[])),
    ("unknown role", CHAT, chat(messages=[{"role": "x", "content": "a"}])),
    ("content is a number", CHAT, chat(messages=[{"role": "user", "content": 1}])),
    ("image without a vision model", CHAT, chat(messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}])),
    ("stream_options without stream", CHAT, chat(stream_options={"include_usage": True})),
    ("stop", CHAT, chat(stop=["a", "b"])),
    ("logit_bias", CHAT, chat(logit_bias={"5": -100})),
    ("logit_bias of no token", CHAT, chat(logit_bias={"999999": 1})),
    ("json_schema", CHAT, chat(max_tokens=40, response_format={
        "type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}})),
    ("bad schema", CHAT, chat(response_format={
        "type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "x"}}})),
    ("bad response_format", CHAT, chat(response_format={"type": "x"})),
    ("tool_choice required", CHAT, chat(max_tokens=60, tools=TOOLS, tool_choice="required")),
    ("tool_choice without tools", CHAT, chat(tool_choice="required")),
    ("prompt too long", CHAT, chat(messages=[{"role": "user", "content": "word " * 5000}])),
    ("completion", TEXT, text()),
    ("completion of tokens", TEXT, text(prompt=[1, 2, 3])),
    ("completion of two texts", TEXT, text(prompt=["a", "b"])),
    ("token out of range", TEXT, text(prompt=[99999999])),
    ("empty prompt", TEXT, text(prompt="")),
    ("no prompt", TEXT, {"max_tokens": 4}),
    ("completion with logprobs", TEXT, text(logprobs=2)),
    ("echo", TEXT, text(echo=True)),
    ("suffix", TEXT, text(suffix="x")),
    ("best_of 2", TEXT, text(best_of=2)),
    ("response", "/v1/responses", {"input": "Hi", "max_output_tokens": 4}),
    ("previous_response_id", "/v1/responses", {"input": "Hi", "previous_response_id": "resp_1"}),
    ("message", "/v1/messages", {"messages": USER, "max_tokens": 4}),
    ("message without max_tokens", "/v1/messages", {"messages": USER}),
    ("count_tokens", "/v1/messages/count_tokens", {"messages": USER}),
    ("embeddings", "/v1/embeddings", {"input": "a"}),
    ("tokenize", "/tokenize", {"content": "a b"}),
    ("tokenize with pieces", "/tokenize", {"content": "a b", "with_pieces": True}),
    ("detokenize", "/detokenize", {"tokens": [5, 6]}),
    ("apply-template", "/apply-template", {"messages": USER}),
    ("models", "/v1/models", None),
    ("a model", "/v1/models/x", None),
    ("health", "/health", None),
    ("metrics", "/metrics", None),
    ("no such path", "/v1/nothing", None),
    ("GET of a POST", CHAT, None),
]


def paths(value, prefix=""):
    """The fields in a value; items of a list are one."""
    if isinstance(value, dict):
        found = set()
        for name, item in value.items():
            found |= {prefix + name} | paths(item, prefix + name + ".")
        return found
    if isinstance(value, list):
        return set().union(*(paths(item, prefix) for item in value)) if value else set()
    return set()


def differing(one, two):
    """Which fields only the one and only the other has; those within others are left out."""
    def outermost(found):
        return sorted(path for path in found if path.rpartition(".")[0] not in found)

    return f"only ours {outermost(one - two)}; only theirs {outermost(two - one)}"


def streamed_fields(address, path, body):
    """The fields of all events of a stream."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    response, connection = serving.send(address, path, body)
    found = [event for event in serving.events(response) if event.startswith("{")]
    connection.close()
    return set().union(*(paths(json.loads(event)) for event in found))


def tokens_of(address, prompt):
    """The tokens of a greedy continuation: the text and the log-probability of each and of the likeliest."""
    body = {"prompt": prompt, "max_tokens": 48, "temperature": 0, "logprobs": 5}
    logprobs = ask(address, TEXT, body)[2]["choices"][0]["logprobs"]
    if "content" in logprobs:
        return [
            (token["token"], token["logprob"], {top["token"]: top["logprob"] for top in token["top_logprobs"]})
            for token in logprobs["content"]
        ]
    return list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]))


def greedy(ours, theirs, most):
    """Whether greedy texts are equal, or part where the gap between two tokens is at most `most`."""
    n_equal, largest, is_well = 0, 0.0, True
    for prompt in PROMPTS:
        for mine, other in zip(tokens_of(ours, prompt), tokens_of(theirs, prompt)):
            if mine[0] == other[0]:
                largest = max(largest, abs(mine[1] - other[1]))
                continue
            gap = mine[1] - mine[2].get(other[0], float("-inf"))
            print(f"  {prompt!r} parts: ours {mine[0]!r}, theirs {other[0]!r}, gap {gap:.4f}")
            is_well = is_well and gap < most
            break
        else:
            n_equal += 1
    print(f"greedy: {n_equal} of {len(PROMPTS)} texts equal; log-probabilities differ by {largest:.4f} at most")
    return is_well


def repeats(address):
    """Whether a seeded request has the same text twice."""
    texts = [ask(address, CHAT, chat(temperature=1, seed=7, max_tokens=24))[2] for _ in range(2)]
    return len({serving.text_of(answer) for answer in texts}) == 1


def compare(ours, theirs):
    for name, path, body in CASES:
        (mine, _, one), (other, _, two) = (ask(address, path, body) for address in (ours, theirs))
        if mine != other:
            error = [reply.get("error", {}) for reply in (one, two) if isinstance(reply, dict)]
            said = "; ".join(str(e.get("message"))[:110] for e in error if e)
            print(f"{name}: {mine} / {other}  {said}")
        fields = paths(one), paths(two)
        if mine == other and fields[0] != fields[1]:
            print(f"{name} ({mine}): {differing(*fields)}")
    for name, path, body in (("chat stream", CHAT, chat()), ("completion stream", TEXT, text())):
        fields = [streamed_fields(address, path, body) for address in (ours, theirs)]
        print(f"{name}: {differing(*fields)}")


def main(hyperion, model, theirs=None):
    llama = [sys.executable, "-c", LLAMA, theirs or model, serving.free_port(), 1]
    llama = serving.Server(llama)
    command = [hyperion, "serve", model, "--device", "cpu", "--activations", "f16", "--threads", 1, "--port", 0]
    hyperion = serving.Server([*command, "--ctx", 2048, "--alias", "m"])
    try:
        is_well = greedy(hyperion.address, llama.address, GAP_OF_F32 if theirs else GAP)
        for name, server in (("ours", hyperion), ("theirs", llama)):
            print(f"a seeded request repeats, {name}: {repeats(server.address)}")
        compare(hyperion.address, llama.address)
    finally:
        hyperion.kill()
        llama.kill()
    sys.exit(not is_well)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
