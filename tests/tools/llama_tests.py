#!/usr/bin/env python3
"""Runs the server tests of llama.cpp against `hyperion serve`.

By hand, not in CI. The tests come with a package of its source:

    pip install aiohttp pytest pytest-timeout filelock numpy openai prometheus-client requests wget
    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz --wildcards '*/llama.cpp/tools/server/tests/*'
    tests/tools/llama_tests.py FOLDER target/release/hyperion MODEL

FOLDER is `tools/server/tests`, and MODEL a GGUF file or a known name; the tests expect a model of
their own, so that those of what exactly it writes fail with any other. More arguments go to pytest.
It takes some minutes. `docs/serving.md` lists what fails, and why.

This file is three things: what starts pytest, a plugin of it, and the program that pytest starts in
place of `llama-server`. The plugin puts `/v1` before paths that llama-server has without it as well,
asks `/v1/completions` where a test asks llama-server's own `/completion`, and adds to requests what
`--n-predict`, `--temp` and `--seed` are there.
"""

import os
import pathlib
import subprocess
import sys

# Files of what both servers have; the others try llama.cpp's own features (slots, LoRA, drafts, MCP,
# images, a template from a file).
FILES = [
    "basic",
    "chat_completion",
    "compat_anthropic",
    "compat_oai_responses",
    "completion",
    "ctx_shift",
    "embedding",
    "ignore_eos",
    "metrics",
    "security",
    "tokenize",
    "tool_call",
]
# llama-server's flags that have a counterpart, and those that take no value.
FLAGS = {
    "--port": "--port",
    "--host": "--host",
    "--alias": "--alias",
    "--parallel": "--parallel",
    "--api-key": "--api-key",
    "--cors-origins": "--cors-origin",
    "--threads": "--threads",
}
SWITCHES = (
    "--offline --cont-batching --embedding --reranking --metrics --kv-unified --swa-full --slots "
    "--no-slots --verbose --context-shift --no-ui --jinja --no-jinja --no-mmproj"
).split()


def run(folder, hyperion, model, arguments):
    """Starts pytest in `folder`."""
    here = pathlib.Path(__file__).resolve()
    environment = dict(
        os.environ,
        LLAMA_SERVER_BIN_PATH=str(here),
        HYPERION_UNDER_TEST=str(pathlib.Path(hyperion).resolve()),
        HYPERION_MODEL=str(pathlib.Path(model).resolve()) if os.path.exists(model) else model,
        PYTHONPATH=str(here.parent),
        PYTHONDONTWRITEBYTECODE="1",
    )
    environment.setdefault("PORT", "28080")
    files = [f"unit/test_{name}.py" for name in FILES]
    chosen = [argument for argument in arguments if argument.startswith("unit/")]
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-p", here.stem, "--timeout", "120"]
    command += arguments if chosen else files + arguments
    return subprocess.call(command, cwd=folder, env=environment)


def pytest_sessionstart(session):
    """Keeps pytest from fetching the models of llama.cpp's tests, and has them ask in our words."""
    import utils

    utils.ServerPreset.load_all = lambda: None
    whole, streamed = utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request

    def make_request(server, method, path, data=None, *args, **kwargs):
        ours, asked = translated(server, path, data)
        response = whole(server, method, ours, asked, *args, **kwargs)
        if path == "/completion" and response.status_code == 200:
            response.body = as_completion(response.body)
        return response

    def make_stream_request(server, method, path, data=None, *args, **kwargs):
        ours, asked = translated(server, path, data)
        for chunk in streamed(server, method, ours, asked, *args, **kwargs):
            yield as_completion(chunk) if path == "/completion" else chunk

    utils.ServerProcess.make_request = make_request
    utils.ServerProcess.make_stream_request = make_stream_request


def translated(server, path, data):
    """The path and the body for us."""
    ours = {"/completion": "/v1/completions"}.get(path, path)
    if ours.startswith(("/chat/completions", "/completions", "/models", "/embeddings", "/responses")):
        ours = "/v1" + ours
    if not isinstance(data, dict):
        return ours, data
    data = dict(data)
    if path == "/completion":
        data.pop("return_tokens", None)
        for theirs, name in {"n_predict": "max_tokens", "n_probs": "logprobs"}.items():
            if theirs in data:
                data[name] = data.pop(theirs)
    limits = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"}
    limit = {"/v1/responses": "max_output_tokens"}.get(ours, "max_tokens")
    if ours.endswith(("completions", "responses")):
        if server.n_predict and not limits & data.keys():
            data[limit] = server.n_predict
        if server.temperature is not None:
            data.setdefault("temperature", server.temperature)
    if ours.endswith("completions"):
        data.setdefault("seed", server.seed)
    return ours, data


def as_completion(body):
    """An answer of `/v1/completions` in the words of `/completion`, as far as there are any."""
    if "choices" not in body:
        return body
    choice, usage = body["choices"][0], body.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    timings = {
        "prompt_n": usage.get("prompt_tokens", 0) - cached,
        "cache_n": cached,
        "predicted_n": usage.get("completion_tokens", 0),
    }
    return {
        "content": choice["text"],
        "stop": choice["finish_reason"] is not None,
        "stop_type": {"length": "limit", "stop": "eos"}.get(choice["finish_reason"], "none"),
        "truncated": False,
        "tokens_evaluated": usage.get("prompt_tokens", 0),
        "timings": timings,
    }


def serve(arguments):
    """Becomes `hyperion serve` under the flags of llama-server."""
    given = {}
    while arguments:
        flag = arguments.pop(0)
        given[flag] = None if flag in SWITCHES else arguments.pop(0)
    command = [os.environ["HYPERION_UNDER_TEST"], "serve", os.environ["HYPERION_MODEL"]]
    command += ["--device", "cpu"]
    for flag, ours in FLAGS.items():
        if flag in given:
            command += [ours, given[flag]]
    if "--ctx-size" in given:
        # Theirs is of all slots together, unless they share it.
        slots = 1 if "--kv-unified" in given else int(given.get("--parallel", 1))
        command += ["--ctx", str(int(given["--ctx-size"]) // slots)]
    if given.get("--pooling") in ("mean", "last"):
        command += ["--pooling", given["--pooling"]]
    os.execv(command[0], command)


if __name__ == "__main__":
    if "HYPERION_UNDER_TEST" in os.environ:
        serve(sys.argv[1:])
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
