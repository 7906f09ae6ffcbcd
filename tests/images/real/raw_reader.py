#!/usr/bin/env python3
"""What vLLM's own clock leaves out of a time to first token: blocking sockets beside it, against its own mean.

    llmatrix start …                          a vLLM, as experiments/real-vllm.toml has it
    raw_reader.py HOST PORT STREAMS ROUNDS ISL OSL completions|chat

One thread a stream. A time to first token runs from the request's last byte being handed to the kernel to the read that
brought the first text. The first round warms up; the server's sums are read when all streams have done it, and at the end.
Run it with `nice -n -20` where the engine keeps every core busy.
"""
import json
import random
import re
import socket
import sys
import threading
import time
import urllib.request

HOST, PORT, STREAMS, ROUNDS, ISL, OSL = sys.argv[1], *map(int, sys.argv[2:7])
API = sys.argv[7]
TEXT = re.compile(rb'"text":"|"content":"[^"]')
METRIC = "vllm:time_to_first_token_seconds"


def totals():
    text = urllib.request.urlopen(f"http://{HOST}:{PORT}/metrics").read().decode()
    pick = lambda name: sum(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith(name))
    return pick(f"{METRIC}_sum"), pick(f"{METRIC}_count")


def model():
    return json.load(urllib.request.urlopen(f"http://{HOST}:{PORT}/v1/models"))["data"][0]["id"]


def request(dice):
    ids = [dice.randrange(10, 200) for _ in range(ISL)]
    body = {"model": MODEL, "max_tokens": OSL, "min_tokens": OSL, "ignore_eos": True, "temperature": 0, "stream": True}
    if API == "completions":
        path, body["prompt"] = "/v1/completions", ids
    else:
        words = " ".join(map(str, ids))[: 3 * ISL]
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": words}]
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def stream(number, out, warm):
    dice = random.Random(number + time.time_ns())
    peer = socket.create_connection((HOST, PORT))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for turn in range(ROUNDS + 1):
        asked = request(dice)
        if turn == 1:
            warm.wait()
        began, first, answer = time.perf_counter(), None, b""
        peer.sendall(asked)
        while not answer.endswith(b"0\r\n\r\n"):
            part = peer.recv(65536)
            now = time.perf_counter()
            if not part:
                sys.exit("the server hung up")
            answer += part
            if first is None and TEXT.search(answer):
                first = now
        if turn > 0:
            out.append((first - began) * 1e3)


MODEL, seen, before = model(), [], []
warm = threading.Barrier(STREAMS, action=lambda: before.extend(totals()))
threads = [threading.Thread(target=stream, args=(i, seen, warm)) for i in range(STREAMS)]
[t.start() for t in threads]
[t.join() for t in threads]
after = totals()
n = after[1] - before[1]
server, here = (after[0] - before[0]) / n * 1e3, sum(seen) / len(seen)
print(f"{API}, {STREAMS} streams, {ISL} tokens: here {here:.2f} ms, server {server:.2f} ms over {n:.0f} of {len(seen)} requests, "
      f"{here - server:+.2f} ms ({100 * (here / server - 1):+.1f} %)")
