"""A server in a process of its own, and a small HTTP client: what the scripts beside this one share."""

import asyncio
import http.client
import json
import socket
import subprocess
import time
import urllib.parse


class Server:
    """A program that listens, started and ended here."""

    def __init__(self, command, log=None):
        self.command = [str(word) for word in command]
        self.log = open(log, "a") if log else subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        # hyperion's ready line ends in its address.
        self.address = self.process.stdout.readline().split()[-1:]
        self.address = self.address[0] if self.address else ""
        if not self.address.startswith("http://"):
            raise RuntimeError(f"{self.command} did not get ready")
        self.port = urllib.parse.urlsplit(self.address).port

    def kill(self):
        self.process.kill()
        self.process.wait()

    def resident(self):
        """Its memory in MiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def connect(address, timeout=120):
    parts = urllib.parse.urlsplit(address)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


def send(address, path, body=None, headers=None):
    """A response with its body unread, and the connection that it comes on."""
    connection = connect(address)
    method = "GET" if body is None else "POST"
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"content-type": "application/json", **(headers or {})})
    return connection.getresponse(), connection


def ask(address, path, body=None, headers=None):
    """The status, the headers, and the body, as JSON where it is."""
    response, connection = send(address, path, body, headers)
    text = response.read().decode()
    connection.close()
    try:
        return response.status, dict(response.headers), json.loads(text)
    except json.JSONDecodeError:
        return response.status, dict(response.headers), text


def events(response):
    """The data of each event of a stream."""
    for line in response:
        line = line.decode().rstrip("\r\n")
        if line.startswith("data:"):
            yield line[5:].strip()


def stream(address, path, body, headers=None):
    """The text of a stream, and its last event."""
    response, connection = send(address, path, {**body, "stream": True}, headers)
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {response.read().decode()}")
    text, last = "", ""
    for last in events(response):
        text += "" if last == "[DONE]" else piece(json.loads(last))
    connection.close()
    return text, last


async def open_stream(address, body):
    """The lines of the stream that answers a completion request, to be read and closed."""
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    text = json.dumps({**body, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + text)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status} {await reader.read(2000)}")
    return reader, writer


def piece(event):
    """The text in an event of any API."""
    if event.get("choices"):
        choice = event["choices"][0]
        return choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    if event.get("type") == "content_block_delta":
        return event["delta"].get("text", "")
    return ""


def text_of(body):
    """The text of a whole answer of any API."""
    if "choices" in body:
        choice = body["choices"][0]
        return choice["text"] if "text" in choice else choice["message"]["content"]
    return "".join(block.get("text", "") for block in body["content"])


def metrics(address, headers=None):
    """The values of /metrics without labels, summed over labels."""
    status, _, text = ask(address, "/metrics", headers=headers)
    if status != 200:
        raise RuntimeError(f"/metrics: {status}")
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            values[name] = values.get(name, 0) + float(line.rsplit(" ", 1)[1])
    return values


def wait_until(what, condition, seconds):
    """How long it took until `condition` held."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - start
