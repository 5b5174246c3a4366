#!/usr/bin/env python3
"""How fast `hyperion bench` and llama.cpp are on the same file and the same CPU cores, taking turns.

By hand, not in CI; llama.cpp comes in a package from PyPI:

    pip install xllamacpp==2026.10.11549
    tests/tools/beside_llama_speed.py target/release/hyperion MODEL.gguf [--threads 2] [--rounds 5]

A round is a prompt of 512 tokens and 64 tokens behind an empty cache on either engine. Printed are the medians of
tokens per second and of processor seconds (user), which other work on the machine disturbs less; both without the
loading of the model. `docs/benchmarks.md` has the outcome.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import urllib.request

PROMPT, GENERATED = 512, 64


def processor_seconds(who):
    return resource.getrusage(who).ru_utime


def of_llama(model, threads):
    """A process of its own, because llama.cpp's threads spin between requests."""
    command = [sys.executable, __file__, "--llama", "-", model, "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])


def llama(model, threads):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.port = 1024, 1, random.randrange(20000, 30000)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def timings(**body):
        body = json.dumps({"cache_prompt": False, "temperature": 0, **body}).encode()
        request = urllib.request.Request(server.listening_address + "/completion", body)
        request.add_header("content-type", "application/json")
        before = processor_seconds(resource.RUSAGE_SELF)
        answer = json.load(urllib.request.urlopen(request))
        return answer["timings"], processor_seconds(resource.RUSAGE_SELF) - before

    tokens = [random.randrange(100, 30000) for _ in range(PROMPT)]
    timings(prompt=[5], n_predict=4)
    prompt, prompt_seconds = timings(prompt=tokens, n_predict=1)
    text, text_seconds = timings(prompt=[5], n_predict=GENERATED, ignore_eos=True)
    found = [prompt["prompt_per_second"], prompt_seconds, text["predicted_per_second"], text_seconds]
    print(json.dumps(found), flush=True)
    os._exit(0)


def of_hyperion(program, model, threads):
    def bench(prompt, generated):
        command = [program, "bench", model, "--device", "cpu", "--threads", str(threads), "-r", "1"]
        command += ["-p", str(prompt), "-n", str(generated), "-o", "json"]
        before = processor_seconds(resource.RUSAGE_CHILDREN)
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        seconds = processor_seconds(resource.RUSAGE_CHILDREN) - before
        return found[0]["median"], seconds

    # What loading takes, and the warm-up of which a run has one.
    _, loading = bench(1, 0)
    prompt, prompt_seconds = bench(PROMPT, 0)
    text, text_seconds = bench(0, GENERATED)
    return [prompt, prompt_seconds - loading, text, text_seconds - loading]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("hyperion")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama:
        llama(args.model, args.threads)
    rounds = []
    for _ in range(args.rounds):
        ours = of_hyperion(args.hyperion, args.model, args.threads)
        rounds.append((ours, of_llama(args.model, args.threads)))
        print(*(f"{found:.2f}" for both in rounds[-1] for found in both), flush=True)
    names = (f"prompt of {PROMPT}, tokens/s", "user s", f"{GENERATED} tokens, tokens/s", "user s")
    for index, name in enumerate(names):
        ours, theirs = (statistics.median(found[who][index] for found in rounds) for who in (0, 1))
        print(f"{name:28} hyperion {ours:8.2f}  llama.cpp {theirs:8.2f}  ratio {ours / theirs:5.2f}")


if __name__ == "__main__":
    main()
