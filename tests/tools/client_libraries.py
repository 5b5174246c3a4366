#!/usr/bin/env python3
"""Libraries that many programs reach a model through, against a server: chat, streams, tools, structured output.

By hand, not in CI:

    pip install litellm instructor pydantic-ai
    hyperion serve qwen2.5-coder-0.5b --device cpu
    tests/tools/client_libraries.py http://127.0.0.1:8080

Behind the address there may be words that the names of checks to run have. A small model need not say anything sensible,
only what a grammar makes it say. Without a network, set LITELLM_LOCAL_MODEL_COST_MAP=True. The exit code is 1 if anything
is not as it should be.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients"))

import anthropic
import instructor
import litellm
import openai
from checks import equal, run
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, ToolDefinition, ToolOutput, direct
from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
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


# What every request of instructor has.
MADE = {"model": "any", "messages": ASKED, "max_tokens": 120, "temperature": 0, "max_retries": 0}


def instructors(address):
    """Its ways to ask for a structure; those that tell the model of it in words alone are no affair of a server."""
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
        yield mode, instructor.from_openai(client, mode=mode)


def check_instructor(address):
    for mode, client in instructors(address):
        made, answer = client.create_with_completion(response_model=City, **MADE)
        assert isinstance(made, City) and answer.usage.completion_tokens, mode


def check_instructor_streams(address):
    for mode, client in instructors(address):
        parts = list(client.create_partial(response_model=City, **MADE))
        City.model_validate(parts[-1].model_dump())
        assert len(parts) > 3, (mode, "the parts come as they are written")


def check_instructor_other_apis(address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    responses = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS)
    assert isinstance(responses.create(response_model=City, **MADE), City)
    client = anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)
    messages = instructor.from_anthropic(client, mode=instructor.Mode.ANTHROPIC_TOOLS)
    # This client's newest version knows no temperature.
    made = {name: value for name, value in MADE.items() if name != "temperature"}
    assert isinstance(messages.create(response_model=City, **made), City)


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
    settings = {"max_tokens": 120, "temperature": 0, "parallel_tool_calls": False}
    for model in pydantic_ai_models(address):
        for form in (ToolOutput(City), NativeOutput(City)):
            agent = Agent(model, output_type=form, model_settings=settings, retries=0)
            whole = agent.run_sync("Tell me of Paris.").output
            assert isinstance(whole, City), (model, form)
            parts = list(agent.run_stream_sync("Tell me of Paris.").stream_output(debounce_by=None))
            equal(parts[-1], whole)


def check_pydantic_ai_tools(address):
    """A call, whole and in a stream, and an answer to its result."""
    function = WEATHER["function"]
    tool = ToolDefinition(name=function["name"], parameters_json_schema=function["parameters"])
    settings = {"max_tokens": 60, "temperature": 0, "parallel_tool_calls": False}
    must_call = ModelRequestParameters(function_tools=[tool], allow_text_output=False)
    asked = ModelRequest.user_text_prompt("What is the weather in Paris?")
    for model in pydantic_ai_models(address):
        def ask(messages, parameters, way=direct.model_request_sync):
            return way(model, messages, model_settings=settings, model_request_parameters=parameters)

        answer = ask([asked], must_call)
        [call] = [part for part in answer.parts if isinstance(part, ToolCallPart)]
        equal((call.tool_name, list(call.args_as_dict())), ("weather", ["city"]))
        with ask([asked], must_call, direct.model_request_stream_sync) as stream:
            assert list(stream), "there are events"
            parts = [part for part in stream.response.parts if isinstance(part, ToolCallPart)]
        equal([part.args_as_dict() for part in parts], [call.args_as_dict()])
        result = ModelRequest(parts=[ToolReturnPart("weather", "Rain.", call.tool_call_id)])
        assert ask([asked, answer, result], ModelRequestParameters(function_tools=[tool])).parts


if __name__ == "__main__":
    run(sys.modules["__main__"], only=sys.argv[2:], address=sys.argv[1])
