#!/usr/bin/env python3
"""Libraries that many programs reach a model through, against a server: chat, streams, tools, structured output.

By hand, not in CI:

    pip install litellm instructor pydantic-ai
    hyperion serve qwen2.5-coder-0.5b --device cpu
    tests/tools/client_libraries.py http://127.0.0.1:8080

A small model need not say anything sensible, only what a grammar makes it say. Without a network, set
LITELLM_LOCAL_MODEL_COST_MAP=True. The exit code is 1 if anything is not
as it should be.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))

import instructor
import litellm
import openai
from checks import equal, run
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

ASKED = [{"role": "user", "content": "What is the weather in Paris? Answer briefly."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    """A city of the world."""

    # A small model adds properties without end where it may.
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=12)
    inhabitants: int = Field(ge=1, le=50_000_000)
    is_capital: bool


def completed(address, **options):
    """A conversation's answer through litellm."""
    options = {"messages": ASKED, "max_tokens": 60, "temperature": 0, **options}
    return litellm.completion(model="openai/any", api_base=f"{address}/v1", api_key="none", **options)


def check_litellm_chat(address):
    answer = completed(address)
    assert answer.choices[0].message.content
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


def check_litellm_stream(address):
    whole = completed(address).choices[0].message.content
    chunks = list(completed(address, stream=True, stream_options={"include_usage": True}))
    equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), whole)
    assert any(getattr(chunk, "usage", None) for chunk in chunks)


def check_litellm_tools(address):
    choice = {"type": "function", "function": {"name": "weather"}}
    options = {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 80}
    message = completed(address, **options).choices[0].message
    call = message.tool_calls[0]
    equal((call.function.name, list(json.loads(call.function.arguments))), ("weather", ["city"]))
    pieces = list(completed(address, stream=True, **options))
    equal(litellm.stream_chunk_builder(pieces).choices[0].message.tool_calls[0].function.arguments,
          call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain."}
    assert completed(address, messages=[*ASKED, message.model_dump(), result], tools=[WEATHER]).choices


def check_litellm_structured_output(address):
    answer = completed(address, response_format=City, max_tokens=120)
    City.model_validate_json(answer.choices[0].message.content)


def check_litellm_other_apis(address):
    options = {"api_key": "none"}
    answer = litellm.completion(
        model="anthropic/any", api_base=address, messages=ASKED, max_tokens=20, temperature=0, **options)
    assert answer.choices[0].message.content
    answer = litellm.responses(
        model="openai/any", api_base=f"{address}/v1", input="Name a river.", max_output_tokens=20, **options)
    equal(answer.output[0].content[0].type, "output_text")
    vectors = litellm.embedding(
        model="openai/any", api_base=f"{address}/v1", input=["a", "b"], encoding_format="float", **options)
    equal(len(vectors.data), 2)
    try:
        completed(address, mirostat=2, allowed_openai_params=["mirostat"])
    except litellm.BadRequestError as error:
        assert "mirostat" in str(error), error
    else:
        raise AssertionError("what is not supported was accepted")


def check_instructor(address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    modes = [instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA]
    for mode in modes:
        made = instructor.from_openai(client, mode=mode).create(
            model="any", response_model=City, messages=ASKED, max_tokens=120, temperature=0, max_retries=0)
        assert isinstance(made, City), mode
    parts = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA).create_partial(
        model="any", response_model=City, messages=ASKED, max_tokens=120, temperature=0, max_retries=0)
    assert list(parts)[-1].name is not None


def pydantic_ai_models(address):
    """A model of each of OpenAI's APIs; the one of Anthropic's fails in itself with the newest `anthropic`."""
    provider = OpenAIProvider(base_url=f"{address}/v1", api_key="none")
    yield OpenAIChatModel("any", provider=provider)
    yield OpenAIResponsesModel("any", provider=provider)


def check_pydantic_ai_chat_and_streams(address):
    for model in pydantic_ai_models(address):
        agent = Agent(model, instructions="Be brief.", model_settings={"max_tokens": 24, "temperature": 0})
        answer = agent.run_sync("Name a river.")
        assert answer.output and answer.usage.output_tokens, model
        again = agent.run_sync("And another.", message_history=answer.all_messages())
        assert again.output, model
        streamed = agent.run_stream_sync("Name a river.")
        equal(list(streamed.stream_text())[-1], answer.output)


def check_pydantic_ai_structured_output(address):
    settings = {"max_tokens": 120, "temperature": 0}
    for model in pydantic_ai_models(address):
        for form in (ToolOutput(City), NativeOutput(City)):
            agent = Agent(model, output_type=form, model_settings=settings, retries=0)
            assert isinstance(agent.run_sync("Tell me of Paris.").output, City), (model, form)


if __name__ == "__main__":
    run(sys.modules["__main__"], address=sys.argv[1])
