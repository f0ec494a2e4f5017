#!/usr/bin/env python3
"""Prints the workload that small engines publish their speed on, for `rein-gpu-bench generate`.

256 requests of 100 to 1024 random tokens, each answered by 100 to 1024 tokens (no stop token ends one early): 142,827
tokens in, 133,966 out. One JSON line each: {"id", "tokens", "max_tokens"}. The draws follow nano-vllm's bench.py, so
that figures can be compared.
"""
import json
import random

random.seed(0)
REQUESTS = 256
prompts = [[random.randint(0, 10000) for _ in range(random.randint(100, 1024))] for _ in range(REQUESTS)]
for request, tokens in enumerate(prompts):
    print(json.dumps({"id": request, "tokens": tokens, "max_tokens": random.randint(100, 1024)}))
