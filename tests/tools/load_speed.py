#!/usr/bin/env python3
"""What N streaming clients get from a server that listens already, hyperion's or another with OpenAI's API.

By hand, not in CI:

    hyperion serve MODEL.gguf --port 8080 --parallel 128 --ctx 1024
    tests/tools/load_speed.py http://127.0.0.1:8080 [--clients 1,8,32,64,128] [--rounds 2]

Each client asks for one answer behind the other, of 128 tokens to a prompt of 512 drawn token ids: no two prompts
begin alike. Printed for each number of clients are the tokens per second of all, and the median and the 99th
percentile of the milliseconds to the first token and between two tokens. `docs/benchmarks.md` has the outcome.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
import urllib.parse

import serving

PROMPT, GENERATED = 512, 128
# Ids of ordinary tokens in every vocabulary that is tried.
FIRST_ID, LAST_ID = 1000, 30000


async def answer(address, prompt):
    """The times at which the tokens of one answer came, from its request on."""
    begin = time.perf_counter()
    body = {"prompt": prompt, "max_tokens": GENERATED, "temperature": 0, "ignore_eos": True}
    usage_too = {"stream_options": {"include_usage": True}}
    reader, writer = await serving.open_stream(address, {**body, **usage_too})
    times, usage = [], None
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        if b'"usage":{' in line:
            usage = json.loads(line[6:])["usage"]
        if b'"finish_reason":null' in line:
            times.append(time.perf_counter() - begin)
    writer.close()
    if not usage or usage["completion_tokens"] != GENERATED:
        raise RuntimeError(f"an answer of {usage} instead of {GENERATED} tokens")
    return times


async def load(address, n_clients, rounds):
    async def client():
        found = []
        for _ in range(rounds):
            prompt = [random.randint(FIRST_ID, LAST_ID) for _ in range(PROMPT)]
            found.append(await answer(address, prompt))
        return found

    begin = time.perf_counter()
    clients = await asyncio.gather(*(client() for _ in range(n_clients)))
    seconds = time.perf_counter() - begin
    answers = [times for client in clients for times in client]
    first = [times[0] for times in answers]
    # Several tokens may come in one event: then their gap is that event's.
    between = [b - a for times in answers for a, b in zip(times, times[1:])]
    return GENERATED * len(answers) / seconds, first, between


def milliseconds(seconds):
    percentile = statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else seconds[0]
    return f"{1e3 * statistics.median(seconds):.1f} / {1e3 * percentile:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", type=urllib.parse.urlsplit)
    parser.add_argument("--clients", default="1,8,32,64,128")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    asyncio.run(load(args.address, 1, 1))
    print("| clients | tokens/s | first token | between tokens |\n| ---: | ---: | ---: | ---: |")
    for n_clients in map(int, args.clients.split(",")):
        speed, first, between = asyncio.run(load(args.address, n_clients, args.rounds))
        print(f"| {n_clients} | {speed:,.0f} | {milliseconds(first)} | {milliseconds(between)} |", flush=True)


if __name__ == "__main__":
    main()
