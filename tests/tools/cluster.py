#!/usr/bin/env python3
"""Three replicas of `hyperion serve` behind the router SMG, in ten steps.

`cargo xtask cluster` builds the server, fetches the router and runs this. It takes some minutes on
two cores, says what each step saw, and ends with an exit code of 1 at the first thing that is not as it
should be. By itself, with `smg` installed: tests/tools/cluster.py target/release/hyperion MODEL
"""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

import serving
from serving import ask, events, free_port, metrics, send, wait_until

MODEL = "small"
KEY = "key-of-the-cluster"
AUTHORIZATION = {"authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"
PAGE_TOKENS = 64
# What SMG 1.13 and vllm-router 0.1 add to requests.
NEUTRAL = {
    "logprobs": False,
    "no_stop_trim": False,
    "skip_special_tokens": True,
    "separate_reasoning": True,
    "stream_reasoning": True,
    "return_hidden_states": False,
    "continue_final_message": False,
    "ignore_eos": False,
    "min_tokens": 0,
    "stop_token_ids": [],
    "regex": None,
    "ebnf": None,
    "lora_path": None,
    "session_params": None,
}


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def chat(text, tokens=8, **more):
    message = {"role": "user", "content": text}
    return {"model": MODEL, "messages": [message], "max_tokens": tokens, "temperature": 0, **more}


class Router:
    """SMG before `replicas`."""

    def __init__(self, replicas, policy, log):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "smg", "launch", "--host", "127.0.0.1"]
        command += ["--port", self.port, "--prometheus-host", "127.0.0.1"]
        command += ["--prometheus-port", free_port(), "--policy", policy, "--log-level", "warn"]
        command += ["--api-key", KEY, "--load-monitor-interval", 1, "--health-check-interval-secs", 1]
        command += ["--cb-timeout-duration-secs", 3, "--shutdown-grace-period-secs", 1]
        command += ["--worker-urls", *(replica.address for replica in replicas)]
        with open(log, "a") as file:
            command = [str(word) for word in command]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        wait_until("the router sees three replicas", self.sees_all, 30)

    def sees_all(self):
        try:
            workers = ask(self.address, "/workers", headers=AUTHORIZATION)[2]["workers"]
        except (OSError, http.client.HTTPException, TypeError, KeyError):
            return False
        return sum(worker["is_healthy"] for worker in workers) == 3

    def kill(self):
        self.process.kill()
        self.process.wait()


class Cluster:
    def __init__(self, hyperion, model, folder):
        self.hyperion, self.model, self.folder = hyperion, model, folder
        self.replicas = [self.start(number, 0) for number in range(3)]
        self.router = self.route("cache_aware")

    def start(self, number, port):
        os.environ["HYPERION_API_KEYS"] = KEY
        command = [self.hyperion, "serve", self.model, "--device", "cpu", "--threads", 1]
        command += ["--port", port, "--parallel", 4, "--alias", MODEL, "--log-format", "json"]
        return serving.Server(command, self.log(number))

    def log(self, name):
        return os.path.join(self.folder, f"{name}.log")

    def route(self, policy):
        return Router(self.replicas, policy, self.log("router"))

    def ask(self, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.router.address, path, body, {**AUTHORIZATION, **headers})

    def send(self, path, body):
        return send(self.router.address, path, {**body, "stream": True}, AUTHORIZATION)

    def replica_of(self, headers):
        """Which replica answered, as the router tells."""
        address = {name.lower(): value for name, value in headers.items()}["x-smg-routed-worker-id"]
        return [replica.address for replica in self.replicas].index(address)

    def gauges(self, name):
        return [metrics(replica.address, AUTHORIZATION)[name] for replica in self.replicas]

    def tokens_in(self, seconds):
        """How many tokens one answer has after so long."""
        begin = time.monotonic()
        check(self.ask(CHAT, chat("How fast?", 32, ignore_eos=True))[0] == 200, "an answer")
        return int(min(max(32 * seconds / (time.monotonic() - begin), 32), 3000))

    def end(self):
        self.router.kill()
        for replica in self.replicas:
            replica.kill()


def one_name(cluster):
    status, _, models = cluster.ask("/v1/models")
    check(status == 200 and [model["id"] for model in models["data"]] == [MODEL], models)
    check(cluster.ask("/health")[0] == 200, "health")
    return "the model is listed once"


def equal_answers(cluster):
    requests = []
    for seed in range(4):
        drawn = {"temperature": 1, "seed": seed}
        text = f"Tell me about the number {seed}."
        requests.append((CHAT, chat(text, 10, **drawn)))
        completion = {"model": MODEL, "prompt": f"Number {seed} is", "max_tokens": 10, **drawn}
        requests.append(("/v1/completions", completion))
        # Messages have no seed.
        requests.append(("/v1/messages", chat(text, 10, top_k=1)))
    direct = cluster.replicas[0].address
    for path, body in requests:
        texts = set()
        for address in (direct, cluster.router.address):
            status, _, answer = ask(address, path, body, AUTHORIZATION)
            check(status == 200, answer)
            texts.add(serving.text_of(answer))
            text, last = serving.stream(address, path, body, AUTHORIZATION)
            check(last == "[DONE]" or "message_stop" in last, last)
            texts.add(text)
        check(len(texts) == 1, f"{path}: {texts}")
    return f"{len(requests)} requests, each four times: the same text"


def affinity(cluster):
    subjects = ["the sea", "old trains", "bread", "the stars"]
    histories = [
        [{"role": "system", "content": f"You know all of {subject}. " + f"Speak of {subject}. " * 40}]
        for subject in subjects
    ]
    seen = [set() for _ in subjects]
    before = [0] * len(subjects)
    for turn in range(3):
        for number, history in enumerate(histories):
            history.append({"role": "user", "content": f"Question {turn}?"})
            body = {"model": MODEL, "messages": history, "max_tokens": 12, "temperature": 0}
            status, headers, answer = cluster.ask(CHAT, body)
            check(status == 200, answer)
            usage = answer["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            pages = before[number] // PAGE_TOKENS
            check(cached >= pages * PAGE_TOKENS, f"turn {turn}: {cached} of {pages} pages")
            before[number] = usage["prompt_tokens"]
            seen[number].add(cluster.replica_of(headers))
            history.append(answer["choices"][0]["message"])
    check(all(len(replicas) == 1 for replicas in seen), seen)
    used = len(set().union(*seen))
    return f"each of 4 conversations on one replica ({used} in all), {before[0]} tokens at the end"


def neutral_fields(cluster):
    status, _, answer = cluster.ask(CHAT, chat("hi", 2, **NEUTRAL))
    check(status == 200, answer)
    status, _, answer = cluster.ask(CHAT, chat("hi", 2, unheard_of=3))
    check(status == 400 and answer["error"]["param"] == "unheard_of", answer)
    return f"{len(NEUTRAL)} neutral fields pass, another is a 400 by its name"


def cancel(cluster):
    streams = [cluster.send(CHAT, chat(f"Count, {n}.", 3000, ignore_eos=True)) for n in range(3)]
    for response, _ in streams:
        events_of = events(response)
        next(events_of), next(events_of)
    check(sum(cluster.gauges("hyperion_requests_running")) == 3, "three answers run")
    for response, connection in streams:
        response.close()
        connection.close()
    names = ("hyperion_requests_running", "hyperion_requests_waiting", "hyperion_kv_pages_used")
    idle = lambda: not any(any(cluster.gauges(name)) for name in names)
    seconds = wait_until("nothing runs and no page is held", idle, 2)
    return f"three streams dropped, all idle after {seconds:.1f} s"


def kill(cluster):
    replica = cluster.replicas[0]
    statuses = []
    numbers = iter(range(1000))

    def client():
        # Under way on each replica, so that some answer is lost with the one that is killed.
        while len(statuses) < 20:
            statuses.append(cluster.ask(CHAT, chat(f"{next(numbers)} is a number.", 16))[0])
            if len(statuses) == 5:
                replica.kill()

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    check(set(statuses) == {200}, statuses)
    cluster.replicas[0] = cluster.start(0, replica.port)

    def has_traffic():
        status, headers, answer = cluster.ask(CHAT, chat(f"{next(numbers)} is one, too.", 2))
        check(status == 200, answer)
        return cluster.replica_of(headers) == 0

    seconds = wait_until("the replica that came back gets traffic", has_traffic, 30)
    return f"{len(statuses)} of {len(statuses)} answered, traffic {seconds:.1f} s after the replica came back"


def drain(cluster):
    body = chat("Tell me a long story.", cluster.tokens_in(5), ignore_eos=True)
    response, connection = cluster.send(CHAT, body)
    number = cluster.replica_of(dict(response.headers))
    replica = cluster.replicas[number]
    told = events(response)
    next(told)
    replica.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    draining = lambda: ask(replica.address, "/health")[0] == 503
    seconds = wait_until("health is 503", draining, 1)
    statuses = [cluster.ask(CHAT, chat(f"And {n}?", 4))[0] for n in range(6)]
    check(statuses == [200] * 6, statuses)
    rest = list(told)
    check(rest[-1] == "[DONE]" and '"finish_reason":"length"' in rest[-2], rest[-2:])
    connection.close()
    check(replica.process.wait(30) == 0, replica.process.returncode)
    took = time.monotonic() - start
    cluster.replicas[number] = cluster.start(number, replica.port)
    return f"503 after {seconds:.2f} s, stream whole, exit code 0 after {took:.1f} s, 6 of 6 elsewhere"


def load(cluster):
    cluster.router.kill()
    cluster.router = cluster.route("least_load")
    counts, failures, done = Counter(), [], threading.Event()

    def client(number):
        for n in range(10):
            body = chat(f"Client {number} asks {n}.", 8, ignore_eos=True)
            status, headers, answer = cluster.ask(CHAT, body)
            if status == 200:
                counts[cluster.replica_of(headers)] += 1
            else:
                failures.append(answer)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    compared = Counter()

    def compare():
        # Between two equal readings of one, the other must be the same.
        while not done.wait(0.1):
            for replica in cluster.replicas:
                before, load, after = requests_of(replica)
                if before == after:
                    compared["equal" if load == before else "unequal"] += 1

    comparing = threading.Thread(target=compare)
    comparing.start()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    done.set()
    comparing.join()
    check(not failures, failures[:1])
    check(min(counts[number] for number in range(3)) >= 12, counts)
    check(compared["equal"] >= 10 and compared["equal"] >= 20 * compared["unequal"], compared)
    shares = "/".join(str(counts[number]) for number in range(3))
    agreed = f"{compared['equal']} of {compared.total()}"
    return f"80 of 80 answered, {shares} by replica; loads and metrics agree in {agreed} readings"


def requests_of(replica):
    def from_metrics():
        values = metrics(replica.address, AUTHORIZATION)
        return values["hyperion_requests_running"] + values["hyperion_requests_waiting"]

    before = from_metrics()
    loads = ask(replica.address, "/v1/loads", headers=AUTHORIZATION)[2]["loads"]
    return before, sum(load["num_total_reqs"] for load in loads), from_metrics()


def headers(cluster):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for address in (cluster.router.address, cluster.replicas[0].address):
        check(ask(address, CHAT, chat("hi"))[0] == 401, "without a key")
    sent = {"traceparent": f"00-{trace}-{span}-01", "x_request_id": "of-this-client"}
    status, _, answer = cluster.ask(CHAT, chat("hi", 2), **sent)
    check(status == 200, answer)

    def is_logged():
        logs = "".join(open(cluster.log(number)).read() for number in range(3))
        return f'"trace":"{trace}"' in logs and '"id":"of-this-client"' in logs

    wait_until("the trace and the id are logged", is_logged, 2)
    return "401 without a key; trace and request id in a replica's log"


STEPS = [
    one_name,
    equal_answers,
    affinity,
    neutral_fields,
    cancel,
    kill,
    drain,
    load,
    headers,
]


def main(hyperion, model):
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(hyperion, model, folder)
        print(f"1 start: three replicas and the router, {time.monotonic() - start:.1f} s", flush=True)
        try:
            for number, step in enumerate(STEPS, 2):
                begin = time.monotonic()
                said = step(cluster)
                took = time.monotonic() - begin
                print(f"{number} {step.__name__.replace('_', ' ')}: {said}, {took:.1f} s", flush=True)
        except BaseException:
            print(open(cluster.log("router")).read()[-2000:], file=sys.stderr)
            raise
        finally:
            cluster.end()
    print(f"all ten steps in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
