#!/usr/bin/env python3
"""Writes the functions of bfcl-eval as JSON schemas, in the form of the JSON Schema Test Suite.

By hand, not in CI:

    pip download --no-deps bfcl-eval && unzip -d bfcl bfcl_eval-*.whl
    tests/tools/function_schemas.py bfcl/bfcl_eval/data 500 > functions.json

Functions whose parameters were there before are left out; those that are kept are spread over all files. Each has the
question for which it is meant, which `tool_calls.py` asks.
"""

import json
import pathlib
import sys

# Its types are those of Python, Java and JavaScript.
TYPES = {
    "dict": "object", "hashmap": "object", "float": "number", "double": "number", "long": "integer",
    "tuple": "array", "arraylist": "array", "char": "string", "any": "string", "": "string",
}
# In the same places there are keywords, and words that are none.
KEYWORDS = {"type", "description", "properties", "required", "items", "enum", "default", "format",
            "minItems", "maxItems", "maximum"}


def schema(found):
    """A schema as JSON has it."""
    given = {name: value for name, value in found.items() if name in KEYWORDS}
    if "type" in given:
        kind = given["type"].lower()
        given["type"] = TYPES.get(kind, kind)
    if "properties" in given:
        given["properties"] = {name: schema(value) for name, value in given["properties"].items()}
    if "items" in given:
        given["items"] = schema(given["items"])
    return given


def functions(folder):
    """All functions with parameters of their own, in the order of the files, with what is asked there."""
    seen = set()
    for path in sorted(folder.glob("BFCL_v4_*.json")):
        if path.name == "BFCL_v4_format_sensitivity.json":
            continue  # It lists questions of the others.
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            for function in entry.get("function", []):
                key = json.dumps(function["parameters"])
                if key not in seen:
                    seen.add(key)
                    yield function, entry["question"][0][-1]["content"]


def main():
    found = list(functions(pathlib.Path(sys.argv[1])))
    wanted = int(sys.argv[2])
    found = [found[i * len(found) // wanted] for i in range(min(wanted, len(found)))]
    groups = [
        {"description": f"{function['name']}: {function['description']}", "question": question,
         "schema": schema(function["parameters"]), "tests": []}
        for function, question in found
    ]
    json.dump(groups, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
