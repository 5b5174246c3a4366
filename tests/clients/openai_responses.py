"""`/v1/responses` as the official client sees it: `openai_responses.py ADDRESS`."""

import json
import sys

import openai
from checks import equal, raises, run

# The model answers it with a sentence of seven tokens.
HELLO = "What is the capital of France?"


def respond(client, input=HELLO, **options):
    options = {"model": "any", "max_output_tokens": 5, "temperature": 0, **options}
    return client.responses.create(input=input, **options)


def check_a_response(client):
    response = respond(client, max_output_tokens=200, metadata={"a": "b"})
    assert response.id.startswith("resp_"), response.id
    equal((response.object, response.status, response.error), ("response", "completed", None))
    equal([item.type for item in response.output], ["message"])
    message = response.output[0]
    assert message.id.startswith("msg_"), message.id
    equal((message.role, message.status), ("assistant", "completed"))
    equal(message.content[0].text, response.output_text)
    assert response.output_text
    usage = response.usage
    equal(usage.total_tokens, usage.input_tokens + usage.output_tokens)
    equal(usage.output_tokens_details.reasoning_tokens, 0)
    equal((response.instructions, response.metadata), (None, {"a": "b"}))
    equal((response.store, response.previous_response_id), (False, None))
    equal((response.temperature, response.max_output_tokens), (0, 200))


def check_it_says_what_a_conversation_does(client):
    chat = client.chat.completions.create(
        model="any", max_tokens=5, temperature=0,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO}],
    )
    response = respond(client, instructions="Be brief.")
    equal(response.output_text, chat.choices[0].message.content)
    equal(response.usage.input_tokens, chat.usage.prompt_tokens)


def check_a_limit_makes_it_incomplete(client):
    response = respond(client, max_output_tokens=2)
    equal((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    equal((response.output[0].status, response.usage.output_tokens), ("incomplete", 2))


def check_the_events_of_a_stream(client):
    whole = respond(client, max_output_tokens=3)
    events = list(respond(client, max_output_tokens=3, stream=True))
    equal([event.sequence_number for event in events], list(range(len(events))))
    types = [event.type for event in events]
    equal(types[:4], [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ])
    equal(types[-4:], [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ])
    equal(set(types[4:-4]), {"response.output_text.delta"})
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    equal(text, whole.output_text)
    equal(text, events[-4].text)
    final = events[-1].response
    equal((final.output_text, final.usage), (text, whole.usage))
    equal({event.response.id for event in events if hasattr(event, "response")}, {final.id})
    ids = {event.item_id for event in events if hasattr(event, "item_id")}
    equal(ids | {event.item.id for event in events if hasattr(event, "item")}, {final.output[0].id})


def check_the_stream_helper(client):
    with client.responses.stream(model="any", input=HELLO, max_output_tokens=200, temperature=0) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    equal(final.status, "completed")
    equal(final.output_text, respond(client, max_output_tokens=200).output_text)


def check_a_conversation_goes_on_with_its_items(client):
    first = respond(client, max_output_tokens=200)
    items = [{"role": "user", "content": HELLO}, *first.output, {"role": "user", "content": "Again."}]
    assert respond(client, items).output_text
    history = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": "What is the weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [
            {"type": "reasoning_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "wet"},
    ]
    assert respond(client, history).output_text


def check_options(client):
    seeded = [respond(client, temperature=1, top_p=0.9, extra_body={"seed": 3}) for _ in range(2)]
    equal(seeded[0].output_text, seeded[1].output_text)
    equal(seeded[0].seed, 3)
    neutral = {
        "store": True, "truncation": "disabled", "include": ["reasoning.encrypted_content"],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "background": False,
        "reasoning": {"effort": "low", "summary": "auto"}, "text": {"format": {"type": "text"}},
        "service_tier": "auto", "user": "u", "prompt_cache_key": "k", "top_logprobs": 0,
        "previous_response_id": None,
    }
    response = respond(client, **neutral)
    equal((response.reasoning.effort, response.text.format.type), ("low", "text"))


def check_schemas(client):
    schema = {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    }
    text = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    response = respond(client, text=text, max_output_tokens=40)
    assert json.loads(response.output_text)["city"] in ("Paris", "Rome")
    equal((response.status, response.text.format.name), ("completed", "answer"))


def check_tools(client):
    tool = {"type": "function", "name": "weather", "strict": True, "parameters": {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
    }}
    options = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 60}
    response = respond(client, **options)
    [call] = response.output
    equal((call.type, call.name, call.status), ("function_call", "weather", "completed"))
    assert call.id.startswith("fc_") and json.loads(call.arguments)["city"] in ("Paris", "Rome")
    equal((response.tools[0].name, response.tool_choice), ("weather", "required"))
    events = list(respond(client, stream=True, **options))
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    equal("".join(deltas), call.arguments)
    final = events[-1].response.output[0]
    equal((final.name, final.arguments), (call.name, call.arguments))
    equal({event.item_id for event in events if hasattr(event, "item_id")}, {final.id})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "wet"}
    history = [{"role": "user", "content": HELLO}, call, output]
    assert respond(client, history, tools=[tool], tool_choice="none").output_text


def check_errors_name_the_field(client):
    for options, param, words in (
        ({"previous_response_id": "resp_1"}, "previous_response_id", "stateless"),
        ({"background": True}, "background", "stateless"),
        ({"extra_body": {"conversation": "conv_1"}}, "conversation", "stateless"),
        ({"temperature": -1}, "temperature", "expected 0"),
        ({"top_p": 7}, "top_p", "from 0 to 1"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1 or more"),
        ({"truncation": "auto"}, "truncation", "not supported"),
        ({"top_logprobs": 2}, "top_logprobs", "0"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice", "no tools"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of", "not supported"),
        ({"input": []}, "input", "empty"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "message"),
    ):
        call = lambda: respond(client, **options)
        error = raises(openai.BadRequestError, call, param, words, status=400)
        equal(error.param, param)
    error = raises(openai.BadRequestError, lambda: respond(client, "word " * 9000), status=400)
    equal(error.code, "context_length_exceeded")


if __name__ == "__main__":
    run(sys.modules["__main__"], client=openai.OpenAI(
        base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0, _strict_response_validation=True,
    ))
