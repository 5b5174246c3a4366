#!/usr/bin/env python3
"""Renders chat templates with Python's jinja2, set up as transformers does, and with ours.

By hand, not in CI:

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36 && tar xf llama_cpp_python-*
    pip install jinja2
    cargo build --example render_chat
    tests/tools/compare_templates.py llama_cpp_python-0.3.36/vendor/llama.cpp/models/templates

Each template gets seven conversations, with and without tools. Both must give the same text, or
both must refuse. The exit code is the number of differences (at most 100).
"""

import difflib
import json
import pathlib
import subprocess
import sys
from datetime import datetime

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

BOS, EOS = "<s>", "</s>"

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city, \"now\" & <here>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name"},
                    "days": {"type": "integer", "minimum": 1, "default": 3},
                    "units": {"type": "string", "enum": ["C", "F"]},
                    "detail": {"type": ["boolean", "null"]},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def call(arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call12345",
                "type": "function",
                "function": {"name": "get_weather", "arguments": arguments},
            }
        ],
    }


USER = {"role": "user", "content": "  How's the wéather in Zürich?\n"}
CONVERSATIONS = {
    "one question": [USER],
    "with a system message": [{"role": "system", "content": "Be brief. \n"}, USER],
    "several turns": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello!"},
        {"role": "user", "content": "1 < 2 & \"3\" <|im_end|>"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Go on."},
    ],
    "a tool's answer": [
        USER,
        call({"city": "Zürich", "days": 2, "detail": None, "exact": True, "at": [1.5, "x"]}),
        {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"t\": 21.5}"},
        {"role": "assistant", "content": "21.5 degrees."},
        {"role": "user", "content": "Thanks."},
    ],
    "arguments as a string": [
        USER,
        call("{\"city\": \"Zürich\"}"),
        {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "21"},
    ],
    "thoughts as parts": [
        USER,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": " Hm. [/THINK]"}, {"type": "text", "text": "Hello!"}]},
        {"role": "user", "content": "Go on."},
    ],
    "content as parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]},
    ],
}


class Generation(Extension):
    """{% generation %}, by which transformers finds the assistant's words again."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return env


def python(request):
    try:
        template = environment().from_string(request["template"])
        text = template.render(
            messages=request["messages"],
            bos_token=BOS,
            eos_token=EOS,
            add_generation_prompt=request["add_generation_prompt"],
            **{"tools": None, "documents": None, **request["variables"]},
        )
        return {"text": text}
    except Exception as error:  # whatever Python raises is a refusal
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    folder = pathlib.Path(sys.argv[1])
    ours = sys.argv[2] if len(sys.argv) > 2 else "target/debug/examples/render_chat"
    requests = []
    paths = sorted(folder.glob("*.jinja"))
    for path in paths:
        for name, messages in CONVERSATIONS.items():
            for tools in (None, TOOLS):
                requests.append(
                    (
                        f"{path.name}: {name}, {'with' if tools else 'without'} tools",
                        {
                            "template": path.read_bytes().decode(),
                            "messages": messages,
                            "variables": {"tools": tools} if tools else {},
                            "bos": BOS,
                            "eos": EOS,
                            "add_generation_prompt": messages[-1]["role"] != "assistant",
                        },
                    )
                )
    lines = "".join(json.dumps(request) + "\n" for _, request in requests)
    run = subprocess.run([ours], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in run.stdout.decode().split("\n") if line]
    assert len(answers) == len(requests)
    differences = refused = 0
    for (name, request), answer in zip(requests, answers):
        wanted = python(request)
        if "error" in wanted and "error" in answer:
            refused += 1
            continue
        if wanted.get("text") == answer.get("text"):
            continue
        differences += 1
        print(f"--- {name}")
        if "error" in wanted or "error" in answer:
            print(f"python: {wanted.get('error', 'a text')}\nours:   {answer.get('error', 'a text')}")
            continue
        pieces = (text["text"].splitlines(True) for text in (wanted, answer))
        for line in list(difflib.unified_diff(*pieces, "python", "ours", n=0))[2:12]:
            print(repr(line))
    equal = len(requests) - differences - refused
    print(f"{len(paths)} templates, {len(requests)} renderings: {equal} equal, "
          f"{refused} refused by both, {differences} different")
    return min(differences, 100)


if __name__ == "__main__":
    sys.exit(main())
