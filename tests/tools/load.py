#!/usr/bin/env python3
"""Many streaming clients at once against `hyperion serve` on the CPU, for minutes.

By hand, not in CI:

    tests/tools/load.py target/release/hyperion tests/fixtures/families/granite-mixed.gguf

Every answer must be the one that the same request has alone, and once the server is warm its memory
must not grow. The exit code is 1 where that is not so. `--seconds N` and `--clients N` change how long
and how many; the cache is too small for all clients, so that some wait.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import urllib.parse

import serving

# Requests that clients choose from.
N_REQUESTS = 48
# MiB by which memory may grow after the first part of the time.
GROWTH = 8
# Of the time, for which the server gets warm.
WARM = 0.2
SERVED = ["--device", "cpu", "--port", 0, "--ctx", 1024, "--parallel", 32, "--kv-tokens", 4096]
GAUGES = ("hyperion_requests_running", "hyperion_requests_waiting", "hyperion_kv_pages_used")


def requests():
    """Of all lengths, some with the same beginning, greedy and drawn."""
    made = []
    for number in range(N_REQUESTS):
        beginning = "All of these begin alike. " * (number % 4)
        drawn = {"temperature": number % 3 / 2, "seed": number, "ignore_eos": number % 2 == 0}
        prompt = f"{beginning}This is number {number}. " + "word " * (number % 7)
        made.append({"prompt": prompt, "max_tokens": 8 + number * 3, **drawn})
    return made


async def answer(address, body):
    """The text of a stream, the seconds to its first event, and its events."""
    begin = time.monotonic()
    reader, writer = await serving.open_stream(address, body)
    said, first, count, is_whole = "", None, 0, False
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            is_whole = True
        elif line.startswith(b"data:"):
            first = first or time.monotonic() - begin
            count += 1
            said += serving.piece(json.loads(line[5:]))
    writer.close()
    if not is_whole:
        raise RuntimeError(f"a stream ended without [DONE] after {count} events")
    return said, first, count


class Load:
    def __init__(self, server, seconds, clients):
        self.server, self.seconds, self.clients = server, seconds, clients
        self.address = urllib.parse.urlsplit(server.address)
        self.requests = requests()
        self.random = random.Random(1)
        self.firsts, self.memory, self.alone = [], [], []
        self.events = 0

    async def run(self):
        for body in self.requests:
            self.alone.append((await answer(self.address, body))[0])
        self.start = time.monotonic()
        await asyncio.gather(self.watch(), *(self.client() for _ in range(self.clients)))

    def is_over(self):
        return time.monotonic() - self.start > self.seconds

    async def client(self):
        while not self.is_over():
            number = self.random.randrange(len(self.requests))
            said, first, count = await answer(self.address, self.requests[number])
            if said != self.alone[number]:
                raise AssertionError(f"request {number}: {said!r}, alone {self.alone[number]!r}")
            self.firsts.append(first)
            self.events += count

    async def watch(self):
        while not self.is_over():
            self.memory.append(self.server.resident())
            await asyncio.sleep(1)

    def report(self):
        took = time.monotonic() - self.start
        firsts = sorted(self.firsts)
        median, late = firsts[len(firsts) // 2], firsts[len(firsts) * 99 // 100]
        print(
            f"{self.clients} clients, {took:.0f} s: {len(firsts)} answers equal to those alone, "
            f"{self.events} events, first after {median:.2f} s (median) and {late:.2f} s (p99)"
        )
        warm = self.memory[int(len(self.memory) * WARM) :]
        third = len(warm) // 3
        early, last = max(warm[:third]), max(warm[-third:])
        print(f"memory: {warm[0]:.1f} MiB warm, at most {early:.1f} early and {last:.1f} at the end")
        values = serving.metrics(self.server.address)
        counted = ("preemptions_total", "cancellations_total", "prefix_cache_hit_tokens_total")
        print(", ".join(f"{name} {values['hyperion_' + name]:.0f}" for name in counted))
        held = {name: values[name] for name in GAUGES if values[name]}
        if held or last - early > GROWTH:
            sys.exit(f"not as it should be: {held or 'memory grows'}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("hyperion")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=64)
    given = parser.parse_args()
    server = serving.Server([given.hyperion, "serve", given.model, *SERVED, "--log-level", "warn"])
    try:
        load = Load(server, given.seconds, given.clients)
        asyncio.run(load.run())
        load.report()
    finally:
        server.kill()


if __name__ == "__main__":
    main()
