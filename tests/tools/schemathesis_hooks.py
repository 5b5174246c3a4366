"""Schemathesis against a server: right and wrong requests made from `/openapi.json`, and all checks of what comes back.

By hand, not in CI:

    pip install schemathesis
    hyperion serve smollm2 --device cpu --ctx 4096
    SCHEMATHESIS_HOOKS=tests/tools/schemathesis_hooks.py st run http://127.0.0.1:8080/openapi.json \\
        --checks all --max-examples 50 --continue-on-failure --request-timeout 300

The hook makes answers short. It also makes right requests right in what schemas do not say: two names for one field
have one value, a tool that must be called is there, arguments are JSON, a token is one of the vocabulary. A tiny model
will do and is quicker.
"""

import schemathesis
from schemathesis import GenerationMode

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST_TOKENS = 4
# A limit above this is a wrong request, and stays one: a hook that mended it would have all the rest judged as right.
LARGEST = 2**32 - 1
# Fewer than any vocabulary has.
TOKENS = 256
TWINS = (
    ("repeat_penalty", "repetition_penalty"),
    ("typical_p", "typ_p"),
    ("max_tokens", "max_completion_tokens"),
    ("content", "prompt"),
    ("add_special", "add_special_tokens"),
)
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        make_right(body)
        for name in LIMITS:
            # No limit at all, except in Anthropic's API, where it is wrong.
            if body.get(name) == -1 and not case.operation.path.startswith("/v1/messages"):
                body[name] = MOST_TOKENS
    for name in LIMITS:
        if is_number(body.get(name)) and MOST_TOKENS < body[name] <= LARGEST:
            body[name] = MOST_TOKENS
    # Where nothing is said, answers are as long as the context.
    name = {"/v1/chat/completions": "max_tokens", "/v1/responses": "max_output_tokens"}.get(case.operation.path)
    if name and all(body.get(other) is None for other in LIMITS):
        body[name] = MOST_TOKENS


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def make_right(body):
    """Makes a request right that fits its schema."""
    for one, other in TWINS:
        if body.get(one) is not None:
            body.pop(other, None)
    if not body.get("stream"):
        body.pop("stream_options", None)
    if body.get("logprobs") is not True:
        body.pop("top_logprobs", None)
    if body.get("logit_bias"):
        body["logit_bias"] = {str(int(token) % TOKENS): bias for token, bias in body["logit_bias"].items()}
    if body.get("n"):
        body["n"] = min(body["n"], 2)
    # The one number that is accepted is the model's own.
    body.pop("dimensions", None)
    for name in ("prompt", "input", "tokens"):
        if name in body:
            body[name] = with_tokens(body[name])
    for item in items(body.get("messages")) + items(body.get("input")):
        make_message_right(item)
    for name in ("messages", "input"):
        # Anthropic's end with the user's, and conversations say something.
        if items(body.get(name)):
            body[name] = [*body[name], {"role": "user", "content": "hi"}]
    make_tools_right(body)
    for schema in schemas(body):
        schema["schema"] = OBJECT


def items(value):
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def with_tokens(value):
    """Tokens of the vocabulary, and no text without any."""
    if isinstance(value, list):
        return [with_tokens(item) for item in value]
    return value % TOKENS if is_number(value) else value or "x"


def make_message_right(message):
    if message.get("reasoning_content") is not None:
        message.pop("reasoning", None)
    if message.get("type") == "function_call":
        message["arguments"] = "{}"
    for call in items(message.get("tool_calls")):
        call["function"]["arguments"] = "{}"


def make_tools_right(body):
    if body.get("tools"):
        # All 256 would not fit the context.
        body["tools"] = body["tools"][:3]
    names = []
    for index, tool in enumerate(items(body.get("tools"))):
        function = tool.get("function") or tool
        names.append(f"f{index}")
        function["name"] = names[-1]
        for name in ("parameters", "input_schema"):
            if function.get(name):
                function[name] = OBJECT
    choice = body.get("tool_choice")
    named = (choice.get("function") or choice) if isinstance(choice, dict) else {}
    if names and "name" in named:
        named["name"] = names[0]
    elif not names:
        body.pop("tool_choice", None)


def schemas(body):
    """Objects of the request whose `schema` is one."""
    formats = [body.get("response_format"), (body.get("text") or {}).get("format"),
               (body.get("output_config") or {}).get("format")]
    for form in formats:
        if isinstance(form, dict):
            yield from (part for part in (form, form.get("json_schema")) if isinstance(part, dict) and part.get("schema"))
