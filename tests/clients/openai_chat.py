"""`/v1/chat/completions` and `/v1/models` as the official client sees them: `openai_chat.py ADDRESS`."""

import json
import sys

import openai
from checks import equal, raises, run

# The model answers it with a sentence of seven tokens.
HELLO = [{"role": "user", "content": "What is the capital of France?"}]

TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather of a city",
    "parameters": {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    },
}}]


def chat(client, messages=HELLO, **options):
    options = {"model": "any", "max_tokens": 5, "temperature": 0, **options}
    return client.chat.completions.create(messages=messages, **options)


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def check_models(client):
    models = client.models.list().data
    equal(len(models), 1)
    equal((models[0].object, models[0].owned_by), ("model", "hyperion"))
    assert models[0].max_model_len > 100
    equal(client.models.retrieve(models[0].id), models[0])
    raises(openai.NotFoundError, lambda: client.models.retrieve("none"), status=404)


def check_a_message(client):
    answer = chat(client)
    assert answer.id.startswith("chatcmpl-"), answer.id
    equal((answer.object, len(answer.choices)), ("chat.completion", 1))
    choice = answer.choices[0]
    equal((choice.index, choice.message.role), (0, "assistant"))
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    equal(usage.completion_tokens, 5)
    assert isinstance(answer.seed, int)


def check_a_stream_says_the_same(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True))
    equal(text_of(chunks), whole.choices[0].message.content)
    equal({chunk.id for chunk in chunks}, {chunks[0].id})
    first, last = chunks[0].choices[0], chunks[-1].choices[0]
    equal((first.delta.role, first.delta.content), ("assistant", None))
    equal((last.delta.content, last.finish_reason), (None, whole.choices[0].finish_reason))
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert all(chunk.usage is None for chunk in chunks)


def check_usage_of_a_stream(client):
    whole = chat(client).usage
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    equal(chunks[-1].choices, [])
    usage = chunks[-1].usage
    equal((usage.prompt_tokens, usage.completion_tokens), (whole.prompt_tokens, whole.completion_tokens))
    assert all(chunk.usage is None for chunk in chunks[:-1])


def check_the_stream_helper(client):
    # It takes an answer that was cut off for an error.
    options = {"model": "any", "messages": HELLO, "max_tokens": 20, "temperature": 0}
    with client.chat.completions.stream(**options) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    whole = chat(client, max_tokens=20).choices[0]
    equal((final.choices[0].message.content, whole.finish_reason), (whole.message.content, "stop"))


def check_cached_tokens(client):
    # A page has 64 tokens, and only full ones are found again.
    messages = [{"role": "user", "content": "Count: " + " ".join(str(n) for n in range(150))}]
    first, second = (chat(client, messages, max_tokens=2).usage for _ in range(2))
    equal(first.prompt_tokens, second.prompt_tokens)
    assert second.prompt_tokens_details.cached_tokens >= 128, second
    assert second.prompt_tokens_details.cached_tokens < second.prompt_tokens


def check_roles_and_parts(client):
    parts = [{"type": "text", "text": "Hi."}, {"type": "text", "text": "How are you?"}]
    in_parts = chat(client, [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}])
    as_text = chat(
        client,
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi.\nHow are you?"}],
    )
    equal(in_parts.choices[0].message.content, as_text.choices[0].message.content)
    history = [
        *HELLO,
        {"role": "assistant", "content": "Hello.", "reasoning_content": "They want a greeting."},
        {"role": "user", "content": "And now goodbye."},
    ]
    assert chat(client, history).choices[0].message.content
    history[1] = {"role": "assistant", "content": "Hello.", "reasoning": "They want a greeting."}
    assert chat(client, history).choices[0].message.content


def check_several_answers(client):
    answer = chat(client, n=3, temperature=1, seed=5)
    equal([choice.index for choice in answer.choices], [0, 1, 2])
    assert len({choice.message.content for choice in answer.choices}) > 1
    equal(answer.choices[0].message.content, chat(client, temperature=1, seed=5).choices[0].message.content)
    chunks = list(chat(client, n=3, temperature=1, seed=5, stream=True))
    for choice in answer.choices:
        own = [c for c in chunks if c.choices[0].index == choice.index]
        equal(text_of(own), choice.message.content)


def check_seeds(client):
    drawn = [chat(client, temperature=1, max_tokens=16) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    assert drawn[0].choices[0].message.content != drawn[1].choices[0].message.content
    again = chat(client, temperature=1, max_tokens=16, seed=drawn[0].seed)
    equal(again.choices[0].message.content, drawn[0].choices[0].message.content)
    equal(again.seed, drawn[0].seed)


def check_stop(client):
    whole = chat(client).choices[0].message.content
    stop = whole[4:7]
    for given in (stop, ["never said", stop]):
        choice = chat(client, stop=given).choices[0]
        equal((choice.message.content, choice.finish_reason), (whole[: whole.index(stop)], "stop"))
        equal(text_of(chat(client, stop=given, stream=True)), whole[: whole.index(stop)])


def check_limits(client):
    for options in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 3}):
        answer = chat(client, **options)
        equal((answer.usage.completion_tokens, answer.choices[0].finish_reason), (3, "length"))


def check_sampling_options(client):
    options = {
        "top_k": 20, "min_p": 0.05, "typical_p": 0.9, "repeat_penalty": 1.1, "repeat_last_n": 32,
        "ignore_eos": True,
    }
    common = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.1, "seed": 3}
    answers = [chat(client, extra_body=options, **common) for _ in range(2)]
    equal(answers[0].choices[0].message.content, answers[1].choices[0].message.content)
    equal(answers[0].usage.completion_tokens, 5)


def check_logit_bias(client):
    # Token 100 of this model is no special one.
    answer = chat(client, max_tokens=2, logit_bias={"100": 100}, logprobs=True, top_logprobs=1)
    tokens = answer.choices[0].logprobs.content
    equal(tokens[0].token, tokens[1].token)
    assert tokens[0].token != chat(client, max_tokens=1).choices[0].message.content


def check_logprobs(client):
    for top in (0, 20):
        choice = chat(client, logprobs=True, top_logprobs=top).choices[0]
        content = choice.logprobs.content
        equal("".join(token.token for token in content), choice.message.content)
        for token in content:
            equal(len(token.top_logprobs), top)
            equal(bytes(token.bytes).decode(), token.token)
            assert token.logprob <= 0
        chunks = list(chat(client, logprobs=True, top_logprobs=top, stream=True))
        streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
        equal(streamed, content)
    equal(chat(client).choices[0].logprobs, None)


def check_schemas(client):
    schema = {
        "type": "object", "additionalProperties": False, "required": ["city", "size"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "size": {"enum": [1, 2]}},
    }
    formats = [
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
        {"type": "json_object"},
    ]
    whole = chat(client, response_format=formats[0], max_tokens=40).choices[0]
    value = json.loads(whole.message.content)
    equal((set(value), whole.finish_reason), ({"city", "size"}, "stop"))
    assert value["city"] in ("Paris", "Rome") and value["size"] in (1, 2), value
    streamed = chat(client, response_format=formats[0], max_tokens=40, stream=True)
    equal(text_of(streamed), whole.message.content)
    cut = chat(client, response_format=formats[1], max_tokens=3).choices[0]
    equal((cut.message.content.lstrip()[0], cut.finish_reason), ("{", "length"))
    broken = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "wizard"}}}
    raises(openai.BadRequestError, lambda: chat(client, response_format=broken), "response_format")


def check_tools(client):
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        options = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 60, "parallel_tool_calls": False}
        message = chat(client, **options).choices[0]
        equal((message.finish_reason, message.message.content), ("tool_calls", None))
        [call] = message.message.tool_calls
        equal((call.type, call.function.name), ("function", "weather"))
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
        chunks = list(chat(client, stream=True, **options))
        parts = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
        equal((parts[0].function.name, {part.index for part in parts}), ("weather", {0}))
        equal("".join(part.function.arguments for part in parts), call.function.arguments)
        equal((text_of(chunks), chunks[-1].choices[0].finish_reason), ("", "tool_calls"))
        history = [
            *HELLO, message.message,
            {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "wet"}]},
        ]
        assert chat(client, history, tools=TOOLS, tool_choice="none").choices[0].message.content
    equal(chat(client, tools=TOOLS, tool_choice="none").choices[0].message.tool_calls, None)
    for options, param in (
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "wizard"}]}, "tools[0]"),
        ({"tools": TOOLS * 2}, "tools[1].function.name"),
    ):
        error = raises(openai.BadRequestError, lambda: chat(client, **options), status=400)
        equal(error.param, param)


def check_template_variables(client):
    plain = chat(client)
    told = chat(client, extra_body={"chat_template_kwargs": {"unheard_of": 1}})
    equal(plain.choices[0].message.content, told.choices[0].message.content)


def check_neutral_values_of_other_engines(client):
    neutral = {
        "user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "modalities": ["text"],
        "response_format": {"type": "text"}, "parallel_tool_calls": True,
    }
    assert chat(client, **neutral).choices[0].message.content
    others = {
        "no_stop_trim": False, "skip_special_tokens": True, "separate_reasoning": True, "best_of": 1,
        "mirostat": 0, "dry_multiplier": 0.0, "unheard_of": None, "cache_prompt": True,
    }
    assert chat(client, extra_body=others).choices[0].message.content


def check_errors_name_the_field(client):
    for options, param in (
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"seed": "x"}, "seed"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"presence_penalty": 1e9}, "presence_penalty"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
        ({"extra_body": {"mirostat": 2}}, "mirostat"),
        ({"extra_body": {"top_k": 1.5}}, "top_k"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
    ):
        error = raises(openai.BadRequestError, lambda: chat(client, **options), param, status=400)
        equal((error.param, error.type), (param, "invalid_request_error"))


def check_a_prompt_that_is_too_long(client):
    messages = [{"role": "user", "content": "word " * 9000}]
    for stream in (False, True):
        call = lambda: chat(client, messages, stream=stream)
        error = raises(openai.BadRequestError, call, status=400)
        equal(error.code, "context_length_exceeded")
        assert error.body["n_prompt_tokens"] > error.body["n_ctx"] > 0, error.body


if __name__ == "__main__":
    run(sys.modules["__main__"], client=openai.OpenAI(
        base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0, _strict_response_validation=True,
    ))
