"""What remains of the server's paths: `openai_others.py ADDRESS`."""

import json
import sys
import urllib.error
import urllib.request

import openai
from checks import equal, raises, run


def call(address, path, body=None, method=None, content_type="application/json"):
    """The status, the type and the text of a response."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": content_type}
    request = urllib.request.Request(address + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers["content-type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def posted(address, path, body):
    status, _, text = call(address, path, body)
    equal((status, text if status != 200 else ""), (200, ""))
    return json.loads(text)


def check_embeddings(client, address):
    texts = ["The sea is deep.", "A river is long.", "The sea is deep."]
    options = {"model": "any", "input": texts}
    floats = client.embeddings.create(encoding_format="float", **options)
    equal([vector.index for vector in floats.data], [0, 1, 2])
    first, second, third = (vector.embedding for vector in floats.data)
    equal(first, third)
    assert first != second
    assert abs(sum(x * x for x in first) - 1) < 1e-3
    assert floats.usage.prompt_tokens == floats.usage.total_tokens > 0
    # Without a word the client asks for base64 and reads it, which its own type does not know.
    packed = openai.OpenAI(base_url=client.base_url, api_key="none").embeddings.create(**options)
    for one, other in zip(floats.data, packed.data):
        assert max(abs(x - y) for x, y in zip(one.embedding, other.embedding)) < 1e-6
    tokens = client.embeddings.create(model="any", input=[504, 260, 253], encoding_format="float")
    equal(tokens.usage.prompt_tokens, 3)
    for wrong in ({"input": []}, {"input": "a", "encoding_format": "int8"}, {"input": "a", "dimensions": 7}):
        raises(openai.BadRequestError, lambda: client.embeddings.create(model="any", **wrong), status=400)


def check_tokens(client, address):
    text = "Hello, wörld! <|im_end|>"
    tokens = posted(address, "/tokenize", {"content": text, "parse_special": False})["tokens"]
    equal(posted(address, "/detokenize", {"tokens": tokens})["content"], text)
    pieces = posted(address, "/tokenize", {"content": "Hello, world", "with_pieces": True})["tokens"]
    equal("".join(token["piece"] for token in pieces), "Hello, world")
    messages = [{"role": "user", "content": text}]
    counted = posted(address, "/tokenize", {"messages": messages})
    prompt = posted(address, "/apply-template", {"messages": messages})["prompt"]
    assert text in prompt and prompt.rstrip().endswith("assistant"), prompt
    answer = client.chat.completions.create(model="any", messages=messages, max_tokens=1)
    equal(counted["count"], answer.usage.prompt_tokens)


def check_figures(client, address):
    status, kind, text = call(address, "/metrics")
    equal(status, 200)
    assert "vllm:num_requests_running" in text.replace("vllm_", "vllm:"), text[:400]
    status, _, text = call(address, "/v1/loads")
    equal((status, len(json.loads(text)["loads"])), (200, 1))
    status, _, text = call(address, "/health")
    equal((status, json.loads(text)), (200, {"status": "ok"}))


def check_every_described_path_is_there(client, address):
    status, kind, text = call(address, "/openapi.json")
    equal((status, kind), (200, "application/json"))
    document = json.loads(text)
    equal(document["openapi"], "3.1.0")
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            url = path.replace("{model}", "none")
            body = b"" if method == "post" else None
            status, kind, text = call(address, url, body, method.upper())
            # There is no such model, and an empty text is no JSON.
            expected = {"post": 400, "get": 404 if "{" in path else 200}[method]
            equal((path, status), (path, expected))
            types = described["responses"][str(status)]["content"]
            assert kind.split(";")[0] in types, f"{path}: {kind}"


def check_bodies_that_are_none(client, address):
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/tokenize"):
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000):
            status, _, text = call(address, path, body)
            equal((path, status), (path, 400))
            assert json.loads(text)["error"]["message"]
        equal(call(address, path, b"{}", content_type="text/plain")[0], 415)
        equal(call(address, path)[0], 405)
    equal(call(address, "/v1/nothing", {})[0], 404)


if __name__ == "__main__":
    ADDRESS = sys.argv[1]
    run(sys.modules["__main__"], address=ADDRESS, client=openai.OpenAI(
        base_url=f"{ADDRESS}/v1", api_key="none", max_retries=0, _strict_response_validation=True,
    ))
