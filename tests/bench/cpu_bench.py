#!/usr/bin/env python3
"""What the loop costs on the CPU, through the real binaries: one JSON line for each question.

    cpu_bench.py BIN_FOLDER [digits|smollm2]     smollm2 wants deploy/fetch_smollm2 models/smollm2-135m-instruct

peer_transformers.py does the same work with `transformers`. Run both one after the other on a quiet machine.
"""
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from shapes import ROOT, SHAPES, config_of, parameters, report

BIN = pathlib.Path(sys.argv[1]).resolve()
NAME = sys.argv[2] if len(sys.argv) > 2 else "digits"
SHAPE = SHAPES[NAME]
THREADS = str(os.cpu_count())


def rein(*arguments):
    run = subprocess.run([BIN / "rein", *arguments], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, f"rein {arguments}: {run.stdout}{run.stderr}"
    return run.stdout


def cpu_seconds(service):
    """What a service has computed; unlike the wall clock it hardly depends on what else the machine does."""
    pid = (pathlib.Path(os.environ["REIN_HOME"]) / f"run/{service}.pid").read_text().strip()
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def learn(folder):
    """Tokens per second of the trainer, by its own clock, in an SFT job that learns every token."""
    sequences, length = SHAPE["train"]
    if NAME == "digits":
        subprocess.run([ROOT / "deploy/make_digits", folder], check=True)
        data = "{train: sft.jsonl}"
    else:
        row = {"prompt": "the" + " the" * (length - 58), "answer": " the" * 56}  # and the end token
        (folder / "text.jsonl").write_text((json.dumps(row) + "\n") * sequences)
        data = "{train: {file: text.jsonl, chat_template: false}}"
    source = "config" if NAME == "digits" else "path"
    (folder / "job.yaml").write_text(
        f"name: learn\nmodel: {{{source}: {SHAPE['model']}}}\ndata: {data}\n"
        f"sft: {{updates: {SHAPE['updates']}, sequences: {sequences}, train_on_prompt: true}}\n")
    rein("submit", "-f", str(folder / "job.yaml"))
    while not json.loads(rein("get", "job", "learn", "-o", "json")).get("metrics"):
        time.sleep(0.1)
    before, done = cpu_seconds("trainer-0"), int(json.loads(rein("get", "job", "learn", "-o", "json"))["update"])
    rein("wait", "learn")
    computed = (cpu_seconds("trainer-0") - before) / (SHAPE["updates"] - done)
    job = json.loads(rein("get", "job", "learn", "-o", "json"))
    lines = [json.loads(line) for line in (pathlib.Path(job["output"]) / "metrics.jsonl").read_text().splitlines()][1:]
    seconds = statistics.median(line["train_seconds"] for line in lines)
    tokens = lines[0]["tokens"]
    report(bench="train", shape=NAME, tokens_per_update=tokens, seconds=seconds, cpu_seconds=computed,
           tokens_per_second=tokens / seconds, gflops=6 * parameters(config_of(SHAPE)) * tokens / seconds / 1e9)


def generate(folder, prompt_tokens, new_tokens):
    """Seconds of one run of `rein-rollout generate`, start and model load included."""
    lines = [{"id": str(i), "tokens": [4 + (7 * i + t) % 20 for t in range(prompt_tokens)]} for i in range(SHAPE["prompts"])]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    started, computed = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([BIN / "rein-rollout", "generate", "--model", model_with_weights(folder), "--input", folder / "in.jsonl",
                    "--output", folder / "out.jsonl", "--temperature", "0", "--max-tokens", str(new_tokens), "--ignore-eos",
                    "--threads", THREADS, "--no-prefix-cache"], check=True, capture_output=True, timeout=900,
                   env=dict(os.environ, OMP_WAIT_POLICY="passive"))
    return time.time() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - computed


def model_with_weights(folder):
    return pathlib.Path(os.environ["REIN_HOME"]) / "jobs/learn/model" if NAME == "digits" else SHAPE["model"]


def speak(folder):
    """Differences of whole runs: what the start costs cancels."""
    prompts, length, new = SHAPE["prompts"], SHAPE["prompt_tokens"], SHAPE["new_tokens"]
    one, short, long = (min(generate(folder, *arguments) for _ in range(3))
                        for arguments in ((1, 1), (length, 1), (length, new)))
    for bench, tokens, less, more in (("decode", prompts * (new - 1), short, long),
                                      ("prefill", prompts * (length - 1), one, short)):
        seconds = max(more[0] - less[0], 1e-3)
        report(bench=bench, shape=NAME, prompts=prompts, tokens=tokens, seconds=seconds, cpu_seconds=more[1] - less[1],
               tokens_per_second=tokens / seconds)
    report(bench="generate_whole_run", shape=NAME, seconds=long[0])


def start():
    times = []
    for _ in range(20):
        began = time.time()
        subprocess.run([BIN / "rein", "--help"], check=True, capture_output=True)
        times.append(time.time() - began)
    report(bench="rein_help", milliseconds=1000 * statistics.median(times))
    began = time.time()
    rein("up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    report(bench="up_to_ready", seconds=time.time() - began)


def first_token(folder):
    """From `rein submit` until held-out answers are scored: the model is loaded three times and weights are sent."""
    model = model_with_weights(folder)
    row = {"prompt": [{"role": "user", "content": "max(1,2,3,4,5)"}], "answer": "5"}
    (folder / "one.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "eval.yaml").write_text(f"name: ask\nmodel: {model}\ndata: {{eval: one.jsonl}}\nevaluate: {{}}\n"
                                      "rewards: [{exact_match: {}}]\neval: {max_completion_tokens: 1}\n")
    began = time.time()
    rein("submit", "-f", str(folder / "eval.yaml"))
    rein("wait", "ask")
    report(bench="submit_to_first_token_scored", shape=NAME, seconds=time.time() - began)


def sync(folder):
    """Seconds of a publish over the gRPC stream, digests on both sides included."""
    row = {"prompt": [{"role": "user", "content": "max(1,2,3,4,5)"}], "answer": "5"}
    (folder / "rl.jsonl").write_text((json.dumps(row) + "\n") * 2)
    (folder / "rl.yaml").write_text(f"name: sync\nmodel: {model_with_weights(folder)}\ndata: {{train: rl.jsonl}}\n"
                                    "grpo: {updates: 6, prompts: 1, group_size: 2, max_completion_tokens: 2}\n"
                                    "rewards: [{exact_match: {}}]\n")
    rein("submit", "-f", str(folder / "rl.yaml"))
    rein("wait", "sync")
    job = json.loads(rein("get", "job", "sync", "-o", "json"))
    lines = [json.loads(line) for line in (pathlib.Path(job["output"]) / "metrics.jsonl").read_text().splitlines()][1:]
    size = (pathlib.Path(job["output"]) / "model/model.safetensors").stat().st_size
    seconds = statistics.median(line["sync_seconds"] for line in lines)
    report(bench="weight_sync_grpc", shape=NAME, megabytes=size / 1e6, seconds=seconds,
           megabytes_per_second=size / 1e6 / max(seconds, 1e-6))


def main():
    report(bench="machine", cores=os.cpu_count(), load=os.getloadavg()[0], version=rein("version").split("\n")[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        os.environ["REIN_HOME"] = str(folder / "home")
        os.environ.pop("REIN_SERVER", None)
        start()
        try:
            learn(folder)
            sync(folder)
            first_token(folder)
        finally:
            rein("down")
        speak(folder)
        report(bench="machine", load=os.getloadavg()[0])


main()
