"""`/v1/completions` as the official client sees it: `openai_completions.py ADDRESS`."""

import sys

import openai
from checks import equal, raises, run

PROMPT = "Once upon a time there was a"


def complete(client, prompt=PROMPT, stream=False, **options):
    # The client's own type has no null for the reason why a text has not ended yet, which OpenAI sends.
    client = connect(client.base_url, is_strict=not stream)
    options = {"model": "any", "max_tokens": 5, "temperature": 0, **options}
    return client.completions.create(prompt=prompt, stream=stream, **options)


def text_of(chunks, index=0):
    return "".join(c.text for chunk in chunks for c in chunk.choices if c.index == index)


def check_a_text(client):
    answer = complete(client)
    assert answer.id.startswith("cmpl-"), answer.id
    equal((answer.object, len(answer.choices)), ("text_completion", 1))
    assert answer.choices[0].text
    equal((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 5))
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + 5)


def check_a_stream_says_the_same(client):
    whole = complete(client)
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    equal(text_of(chunks), whole.choices[0].text)
    equal({chunk.id for chunk in chunks}, {chunks[0].id})
    equal((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 5))
    equal(chunks[-2].choices[0].finish_reason, "length")


def check_prompts_of_every_form(client):
    prompts = ["The sea is", "A river is"]
    both = complete(client, prompts)
    equal([choice.index for choice in both.choices], [0, 1])
    for prompt, choice in zip(prompts, both.choices):
        equal(complete(client, prompt).choices[0].text, choice.text)
    chunks = list(complete(client, prompts, stream=True))
    for choice in both.choices:
        equal(text_of(chunks, choice.index), choice.text)
    tokens = complete(client, [504, 260, 253])
    equal(tokens.usage.prompt_tokens, 3)
    equal(len(complete(client, [[504, 260], [253]]).choices), 2)


def check_options(client):
    equal(complete(client, max_tokens=None).usage.completion_tokens, 16)
    several = complete(client, n=2, temperature=1, seed=4)
    equal(several.choices[0].text, complete(client, temperature=1, seed=4).choices[0].text)
    whole = complete(client).choices[0].text
    stopped = complete(client, stop=whole[3:6]).choices[0]
    equal((stopped.text, stopped.finish_reason), (whole[: whole.index(whole[3:6])], "stop"))
    assert complete(client, best_of=1, echo=False, suffix=None, user="u").choices[0].text


def check_logprobs(client):
    choice = complete(client, logprobs=2).choices[0]
    logprobs = choice.logprobs
    equal("".join(logprobs.tokens), choice.text)
    equal(len(logprobs.token_logprobs), 5)
    assert all(2 <= len(top) <= 3 for top in logprobs.top_logprobs)
    chunks = list(complete(client, logprobs=2, stream=True))
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.tokens]
    equal(streamed, logprobs.tokens)


def check_errors_name_the_field(client):
    for options, param in (
        ({"prompt": 5}, "prompt"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"temperature": -1}, "temperature"),
        ({"extra_body": {"messages": [1]}}, "messages"),
    ):
        error = raises(openai.BadRequestError, lambda: complete(client, **options), param, status=400)
        equal(error.param, param)
    error = raises(openai.BadRequestError, lambda: complete(client, "word " * 9000), status=400)
    equal(error.code, "context_length_exceeded")


def connect(address, is_strict):
    return openai.OpenAI(
        base_url=address, api_key="none", max_retries=0, _strict_response_validation=is_strict,
    )


if __name__ == "__main__":
    run(sys.modules["__main__"], client=connect(f"{sys.argv[1]}/v1", is_strict=True))
