"""`/v1/messages` as the official client sees it: `anthropic_messages.py ADDRESS`."""

import json
import sys

import anthropic
from checks import equal, raises, run

# The model answers it with a sentence of seven tokens.
HELLO = [{"role": "user", "content": "What is the capital of France?"}]
BILLING = "x-anthropic-billing-header: cc_version=1.0; cc_entrypoint=cli; cch={};"


def create(client, messages=HELLO, **options):
    options = {"model": "any", "max_tokens": 5, "temperature": 0, **options}
    # The newest client has no names for these any more.
    sampling = {name: options.pop(name) for name in ("temperature", "top_k", "top_p") if name in options}
    options["extra_body"] = {**sampling, **options.get("extra_body", {})}
    return client.messages.create(messages=messages, **options)


def count(client, messages=HELLO, **options):
    return client.messages.count_tokens(model="any", messages=messages, **options).input_tokens


def prompt_tokens(message):
    usage = message.usage
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def check_a_message(client):
    message = create(client, max_tokens=200)
    assert message.id.startswith("msg_"), message.id
    equal((message.type, message.role, message.stop_reason), ("message", "assistant", "end_turn"))
    equal([block.type for block in message.content], ["text"])
    assert message.content[0].text
    assert message.usage.output_tokens > 0
    equal(message.stop_sequence, None)


def check_a_stream_says_the_same(client):
    whole = create(client)
    options = {"model": "any", "messages": HELLO, "max_tokens": 5}
    with client.messages.stream(extra_body={"temperature": 0}, **options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    equal(text, whole.content[0].text)
    equal((final.content[0].text, final.stop_reason), (text, whole.stop_reason))
    equal(prompt_tokens(final), prompt_tokens(whole))
    equal(final.usage.output_tokens, whole.usage.output_tokens)


def check_the_events_of_a_stream(client):
    events = list(create(client, stream=True))
    types = [event.type for event in events]
    equal(types[:2], ["message_start", "content_block_start"])
    equal(types[-3:], ["content_block_stop", "message_delta", "message_stop"])
    equal(set(types[2:-3]), {"content_block_delta"})
    equal({event.index for event in events[1:-2]}, {0})
    equal(events[0].message.content, [])
    equal(events[-2].delta.stop_reason, "max_tokens")


def check_it_says_what_a_conversation_does(client):
    system = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}]
    in_blocks = create(client, system=system)
    equal(create(client, system="Be kind.\nBe brief.").content, in_blocks.content)
    blocks = [{"type": "text", "text": HELLO[0]["content"], "cache_control": {"type": "ephemeral"}}]
    equal(create(client, [{"role": "user", "content": blocks}]).content, create(client).content)


def check_counts(client):
    for options in ({}, {"system": "Be kind."}):
        equal(count(client, **options), prompt_tokens(create(client, **options)))
    history = [
        *HELLO,
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "They want a greeting.", "signature": "s"},
            {"type": "text", "text": "Hello."},
        ]},
    ]
    assert count(client, history) > count(client)


def check_a_changing_billing_line_keeps_the_cache(client):
    text = "Count: " + " ".join(str(n) for n in range(150))
    usages = []
    for number in range(2):
        system = [{"type": "text", "text": BILLING.format(number)}, {"type": "text", "text": text}]
        usages.append(create(client, system=system, max_tokens=2).usage)
    assert usages[1].cache_read_input_tokens >= 128, usages
    equal(count(client, system=BILLING.format(3)), count(client))


def check_stops_and_limits(client):
    whole = create(client).content[0].text
    stop = whole[4:7]
    message = create(client, stop_sequences=["never said", stop])
    equal((message.stop_reason, message.stop_sequence), ("stop_sequence", stop))
    equal(message.content[0].text, whole[: whole.index(stop)])
    limited = create(client, max_tokens=3)
    equal((limited.stop_reason, limited.usage.output_tokens), ("max_tokens", 3))


def check_sampling(client):
    options = {"temperature": 1, "top_k": 40, "top_p": 0.9, "extra_body": {"seed": 5, "min_p": 0.05}}
    equal(create(client, **options).content, create(client, **options).content)
    drawn = [create(client, temperature=1, max_tokens=16) for _ in range(2)]
    assert drawn[0].content != drawn[1].content


def check_histories(client):
    history = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I look.", "signature": "s"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"place": "sea"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "wet"}]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "no such place", "is_error": True},
            {"type": "text", "text": "And?"},
        ]},
    ]
    message = create(client, history)
    assert message.content
    history += [{"role": "assistant", "content": message.content}, {"role": "user", "content": "So?"}]
    assert create(client, history).content


def check_tools(client):
    schema = {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    }
    tools = [{"name": "weather", "description": "The weather of a city", "input_schema": schema}]
    for kind in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        choice = {**kind, "disable_parallel_tool_use": True}
        options = {"tools": tools, "tool_choice": choice, "max_tokens": 60}
        message = create(client, **options)
        [block] = message.content
        equal((block.type, block.name, message.stop_reason), ("tool_use", "weather", "tool_use"))
        assert block.input["city"] in ("Paris", "Rome"), block.input
        with client.messages.stream(
            model="any", messages=HELLO, extra_body={"temperature": 0}, **options,
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_message()
        equal((final.content[0].input, final.stop_reason), (block.input, "tool_use"))
        history = [
            *HELLO, {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "wet"}]},
        ]
        assert create(client, history, tools=tools, tool_choice={"type": "none"}).content[0].text
    assert count(client, tools=tools) > count(client)
    format = {"type": "json_schema", "schema": schema}
    message = create(client, output_config={"format": format}, max_tokens=40)
    assert json.loads(message.content[0].text)["city"] in ("Paris", "Rome")


def check_options_that_change_nothing(client):
    options = {
        "metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"},
        "thinking": {"type": "disabled"}, "output_config": {"effort": "low"},
    }
    equal(create(client, **options).content, create(client).content)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert create(client, thinking=thinking).content


def check_errors_name_the_field(client):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    for options, param in (
        ({"temperature": 1.5}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"top_k": -7}, "top_k"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [image]}]}, "messages[0].content[0].type"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Well"}]}, "messages"),
        ({"system": [image]}, "system[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"container": "c"}, "container"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
    ):
        for stream in (False, True):
            call = lambda: create(client, stream=stream, **options)
            error = raises(anthropic.BadRequestError, call, param, status=400)
            equal((error.body["type"], error.body["error"]["type"]), ("error", "invalid_request_error"))


def check_a_prompt_that_is_too_long(client):
    messages = [{"role": "user", "content": "word " * 9000}]
    # By these words coding agents know what to do.
    raises(anthropic.BadRequestError, lambda: create(client, messages), "prompt is too long", status=400)


def check_other_paths_have_errors_too(client):
    raises(anthropic.NotFoundError, lambda: client.messages.batches.retrieve("none"), "batches", status=404)


if __name__ == "__main__":
    run(sys.modules["__main__"], client=anthropic.Anthropic(
        base_url=sys.argv[1], api_key="none", max_retries=0, _strict_response_validation=True,
    ))
