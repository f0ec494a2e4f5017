#!/usr/bin/env python3
"""The work of cpu_bench.py done with `transformers`: a peer to hold Rein's figures against.

    PYTHON tests/bench/peer_transformers.py [digits|smollm2]     PYTHON: one that has torch and transformers
"""
import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # as Rein's services

import statistics
import sys
import time

import torch
import transformers

from shapes import SHAPES, config_of, parameters, report

NAME = sys.argv[1] if len(sys.argv) > 1 else "digits"
SHAPE = SHAPES[NAME]
torch.set_num_threads(os.cpu_count())


def model():
    if NAME == "digits":
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(SHAPE["model"]))
    return transformers.AutoModelForCausalLM.from_pretrained(SHAPE["model"], dtype=torch.float32)


def learn(net):
    sequences, length = SHAPE["train"]
    ids = torch.randint(4, 24, (sequences, length))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6)
    net.train()
    times, computed = [], 0
    for _ in range(SHAPE["updates"]):
        began = time.time()
        if len(times) == 1:
            computed = time.process_time()
        net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.time() - began)
    seconds, tokens = statistics.median(times[1:]), sequences * length
    report(bench="train", peer="transformers", shape=NAME, tokens_per_update=tokens, seconds=seconds,
           cpu_seconds=(time.process_time() - computed) / (len(times) - 1), tokens_per_second=tokens / seconds, gflops=6 * parameters(config_of(SHAPE)) * tokens / seconds / 1e9)


def generate(net, prompt_tokens, new_tokens):
    ids = torch.randint(4, 24, (SHAPE["prompts"], prompt_tokens))
    began, computed = time.time(), time.process_time()
    net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                 do_sample=False, pad_token_id=0)
    return time.time() - began, time.process_time() - computed


def speak(net):
    net.eval()
    prompts, length, new = SHAPE["prompts"], SHAPE["prompt_tokens"], SHAPE["new_tokens"]
    one, short, long = (min(generate(net, *arguments) for _ in range(3)) for arguments in ((1, 1), (length, 1), (length, new)))
    for bench, tokens, less, more in (("decode", prompts * (new - 1), short, long),
                                      ("prefill", prompts * (length - 1), one, short)):
        seconds = max(more[0] - less[0], 1e-3)
        report(bench=bench, peer="transformers", shape=NAME, prompts=prompts, tokens=tokens, seconds=seconds,
               cpu_seconds=more[1] - less[1], tokens_per_second=tokens / seconds)


report(bench="machine", cores=os.cpu_count(), load=os.getloadavg()[0], torch=torch.__version__,
       transformers=transformers.__version__)
network = model()
learn(network)
with torch.no_grad():
    speak(network)
report(bench="machine", load=os.getloadavg()[0])
