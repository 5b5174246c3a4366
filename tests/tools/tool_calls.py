#!/usr/bin/env python3
"""Asks a running server to call functions, whole and streamed, and checks every call that it makes.

By hand, not in CI. Python's own library is enough; `jsonschema` is the judge where it is installed.

    tests/tools/function_schemas.py bfcl/bfcl_eval/data 300 > functions.json
    hyperion serve model.gguf --port 8080 --ctx 8192
    tests/tools/tool_calls.py http://localhost:8080 functions.json --concurrency 8

Each function is offered alone, with `tool_choice: "required"`. An answer that ends by itself must be calls of it, with
arguments that are JSON and fit the schema; a stream must tell the same as it goes. The exit code is 1 if one does not, if a request is refused, or
if more than 5 % of the answers end by length.
"""

import argparse
import collections
import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

try:
    import jsonschema
except ImportError:
    jsonschema = None

KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_kind(value, kind):
    if kind in ("integer", "number"):
        kinds = int if kind == "integer" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, KINDS[kind])


def is_valid(value, schema):
    """Validation by the keywords that the functions have."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_kind(value, kind) for kind in kinds):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return set(schema.get("required", [])) <= set(value) and all(
            is_valid(member, properties.get(name, {})) for name, member in value.items())
    if isinstance(value, list):
        within = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return within and all(is_valid(item, schema.get("items", {})) for item in value)
    return not is_kind(value, "number") or value <= schema.get("maximum", value)


def fault_of_call(name, arguments, function):
    """What is wrong with a call; nothing where it is right."""
    if name != function["name"]:
        return f"it calls {name!r}"
    try:
        value = json.loads(arguments)
    except ValueError as error:
        return f"its arguments are not JSON ({error}): {arguments!r}"
    schema = function["parameters"]
    fits = jsonschema.Draft202012Validator(schema).is_valid if jsonschema else lambda v: is_valid(v, schema)
    if not isinstance(value, dict) or not fits(value) or not is_valid(value, schema):
        return f"its arguments do not fit: {arguments}"
    others = set(value) - set(schema.get("properties", {}))
    return f"it has arguments that the function has not: {others}" if others else None


class Stream:
    """The calls of a stream, put together."""

    def __init__(self):
        self.calls, self.content, self.finish, self.faults = [], "", None, []

    def take(self, line):
        choices = json.loads(line)["choices"]
        if not choices:
            return
        delta = choices[0]["delta"]
        self.content += delta.get("content") or ""
        for part in delta.get("tool_calls", []):
            function = part["function"]
            if part["index"] == len(self.calls):
                self.calls.append([function["name"], ""])
            elif part["index"] != len(self.calls) - 1 or function.get("name"):
                self.faults.append("a delta belongs to no call or begins one again")
            self.calls[-1][1] += function.get("arguments") or ""
        self.finish = choices[0]["finish_reason"] or self.finish


def read_stream(response):
    stream = Stream()
    for line in response:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            if b'"error"' in line[:20]:
                raise ValueError(line.decode())
            stream.take(line[6:])
    return stream.calls, stream.content, stream.finish, stream.faults


def read_whole(response):
    choice = json.load(response)["choices"][0]
    message = choice["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    return calls, message.get("content") or "", choice["finish_reason"], []


def post(options, path, body):
    headers = {"content-type": "application/json", "authorization": f"Bearer {options.key}"}
    request = urllib.request.Request(options.url + path, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=options.timeout)


def logit_bias(options):
    """A bias for texts that are one token each."""
    found = {}
    for text in options.likely:
        with post(options, "/tokenize", {"content": text, "parse_special": True}) as response:
            tokens = json.load(response)["tokens"]
        if len(tokens) == 1:
            found[str(tokens[0])] = options.bias
    return found


def ask(options, group, streams):
    """How an answer ended, and what is wrong with it."""
    name, _, description = group["description"].partition(": ")
    function = {"name": name, "description": description, "parameters": group["schema"]}
    body = {
        "messages": [{"role": "user", "content": group["question"]}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required", "parallel_tool_calls": options.parallel,
        "temperature": options.temperature, "seed": 1, "max_tokens": options.max_tokens, "stream": streams,
        "logit_bias": options.logit_bias,
    }
    try:
        with post(options, "/v1/chat/completions", body) as response:
            calls, content, finish, faults = (read_stream if streams else read_whole)(response)
    except urllib.error.HTTPError as error:
        message = json.load(error)["error"]["message"]
        return f"status {error.code}", [message], ""
    except (OSError, ValueError) as error:
        return "no answer", [repr(error)], ""
    if finish == "tool_calls":
        faults += ["there is no call"] if not calls else []
        faults += [f"there is content: {content!r}"] if content else []
        faults += filter(None, (fault_of_call(*call, function) for call in calls))
    elif finish != "length":
        faults.append(f"it ends by {finish!r}, with {len(calls)} calls and {content!r}")
    return finish, faults, json.dumps(calls)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("functions")
    parser.add_argument("--n", type=int, help="only so many of the functions, spread over all")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--parallel", action="store_true", help="allow several calls in an answer")
    parser.add_argument("--likely", nargs="*", default=[], metavar="TEXT",
                        help="tokens that are made likely, so that models without sense come to an end")
    parser.add_argument("--bias", type=float, default=5, help="how likely")
    parser.add_argument("--key", default="none")
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--log", help="a file for all answers, one a line")
    options = parser.parse_args()
    options.logit_bias = logit_bias(options)
    with open(options.functions) as file:
        groups = json.load(file)
    n = min(options.n or len(groups), len(groups))
    groups = [groups[i * len(groups) // n] for i in range(n)]
    jobs = [(group, streams) for group in groups for streams in (False, True)]
    start = time.time()
    with ThreadPoolExecutor(options.concurrency) as pool:
        results = list(pool.map(lambda job: ask(options, *job), jobs))
    ends = collections.Counter(end for end, _, _ in results)
    n_faulty = 0
    log = open(options.log, "w") if options.log else None
    for (group, streams), (end, faults, text) in zip(jobs, results):
        way = "streamed" if streams else "whole"
        n_faulty += bool(faults)
        if faults:
            print(f"{group['description'][:60]!r}, {way}: {end}: {'; '.join(faults)}"[:600])
        if log:
            log.write(json.dumps([group["description"][:60], way, end, faults, text]) + "\n")
    same = sum(whole[::2] == streamed[::2] for whole, streamed in zip(results[::2], results[1::2]))
    judge = "jsonschema" if jsonschema else "the script"
    by_length = ends["length"] / len(results)
    print(f"{len(groups)} functions, {len(results)} answers in {time.time() - start:.0f} s, judged by {judge}: "
          f"{dict(ends)}; {n_faulty} faulty; {by_length:.1%} ended by length; "
          f"{same} of {len(groups)} the same whole and streamed")
    return int(n_faulty > 0 or by_length > 0.05)


if __name__ == "__main__":
    sys.exit(main())
