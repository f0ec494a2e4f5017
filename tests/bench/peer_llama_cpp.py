#!/usr/bin/env python3
"""The decoding of cpu_bench.py done with llama.cpp, over a folder that `rein models export` wrote as GGUF.

    rein models export models/smollm2-135m-instruct --dtype f32 --to smollm2.gguf     or bf16
    PYTHON tests/bench/peer_llama_cpp.py smollm2.gguf [prompts at once, 16]            PYTHON: one that has xllamacpp
"""
import os
import sys
import threading
import time

import xllamacpp

from shapes import SHAPES, report

SHAPE = SHAPES["smollm2"]
PROMPTS = int(sys.argv[2]) if len(sys.argv) > 2 else SHAPE["prompts"]

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel = PROMPTS
params.n_ctx = PROMPTS * 256
params.n_batch = params.n_ubatch = 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count()
params.cache_prompt = False
params.warmup = True
server = xllamacpp.Server(params)


def generate(new_tokens):
    """Seconds for all prompts at once, and the processor's."""
    def one(i):
        answer = server.handle_completions({
            "prompt": [4 + (7 * i + t) % 20 for t in range(SHAPE["prompt_tokens"])], "n_predict": new_tokens, "temperature": 0,
            "ignore_eos": True, "cache_prompt": False})
        answers.append(answer)
    answers, started, computed = [], time.time(), time.process_time()
    threads = [threading.Thread(target=one, args=(i,)) for i in range(PROMPTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, computed = time.time() - started, time.process_time() - computed
    written = [a["usage"]["completion_tokens"] for a in answers]
    assert written == [new_tokens] * PROMPTS, answers[0]
    return seconds, computed


generate(2)
few, many = (min(generate(n) for _ in range(2)) for n in (1, SHAPE["new_tokens"]))
tokens = PROMPTS * (SHAPE["new_tokens"] - 1)
report(bench="decode", peer="llama.cpp", file=sys.argv[1], prompts=PROMPTS, tokens=tokens, seconds=many[0] - few[0],
       cpu_seconds=many[1] - few[1], tokens_per_second=tokens / (many[0] - few[0]))
report(bench="prefill", peer="llama.cpp", tokens=PROMPTS * SHAPE["prompt_tokens"], seconds=few[0], cpu_seconds=few[1])
report(bench="machine", load=os.getloadavg()[0])
os._exit(0)
