#!/usr/bin/env python3
"""Talks to the policy of a job as OpenAI's clients do: plain HTTP, and the openai package where it is installed.

    openai_test.py BIN_FOLDER
"""
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

from stack import BIN, MODEL, Stack

try:
    import openai
except ImportError:
    openai = None

JOB = """name: talks
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 20}}
grpo: {updates: 3, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
""" % MODEL
ASK = {"model": "talks", "messages": [{"role": "user", "content": "max(1,2,3)"}], "max_tokens": 8, "ignore_eos": True}


class OpenAiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cls.address = "127.0.0.1:%d" % probe.getsockname()[1]
        cls.stack = Stack("--references", "0", "--openai", cls.address)
        cls.addClassCleanup(cls.stack.down)
        code, answer = cls.call("/v1/chat/completions", ASK)
        assert code == 503 and "no model is loaded" in answer, answer
        cls.stack.submit(JOB)
        cls.stack.rein("wait", "talks", "--timeout", "120")

    @classmethod
    def call(cls, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{cls.address}{path}", data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, path="/v1/chat/completions", **changes):
        code, answer = self.call(path, {**ASK, **changes} if "chat" in path else changes)
        self.assertEqual(code, 200, answer)
        return json.loads(answer)

    def events(self, **changes):
        code, answer = self.call("/v1/chat/completions", {**ASK, "stream": True, **changes})
        self.assertEqual(code, 200, answer)
        lines = [line[6:] for line in answer.split("\n") if line.startswith("data: ")]
        self.assertEqual(lines[-1], "[DONE]")
        return [json.loads(line) for line in lines[:-1]]

    def test_a_chat(self):
        answer = self.ask(n=2, logprobs=True, return_token_ids=True)
        self.assertEqual((answer["object"], answer["model"]), ("chat.completion", "talks"))
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1])
        for choice in answer["choices"]:
            self.assertEqual(choice["finish_reason"], "length")
            self.assertEqual(len(choice["token_ids"]), 8)
            self.assertEqual(len(choice["logprobs"]["content"]), 8)
            self.assertTrue(all(t["logprob"] <= 0 for t in choice["logprobs"]["content"]))
            self.assertEqual(choice["policy_version"]["number"], 3)
        self.assertEqual(answer["usage"]["completion_tokens"], 16)
        self.assertEqual(answer["usage"]["prompt_tokens"], len(answer["choices"][0]["prompt_token_ids"]))

    def test_a_seed_gives_the_same_again(self):
        say = lambda seed: self.ask(seed=seed, n=2)["choices"]
        texts = lambda choices: [c["message"]["content"] for c in choices]
        self.assertEqual(texts(say(5)), texts(say(5)))
        self.assertNotEqual(texts(say(5)), texts(say(6)))
        self.assertNotEqual(texts(self.ask()["choices"]) + texts(self.ask()["choices"]), texts(self.ask()["choices"]) * 2)

    def test_a_stream_says_what_the_whole_says(self):
        whole = self.ask(seed=3, n=3)
        events = self.events(seed=3, n=3, stream_options={"include_usage": True})
        said, ends = {}, {}
        for event in events:
            for choice in event["choices"]:
                said[choice["index"]] = said.get(choice["index"], "") + choice["delta"].get("content", "")
                if choice["finish_reason"]:
                    ends[choice["index"]] = choice["finish_reason"]
        self.assertEqual([said[i] for i in range(3)], [c["message"]["content"] for c in whole["choices"]])
        self.assertEqual(ends, {0: "length", 1: "length", 2: "length"})
        self.assertEqual(events[-1]["usage"], whole["usage"])
        self.assertGreater(len(events), 3 * 4, "in pieces")

    def test_stop_strings_are_cut_off(self):
        full = self.ask(seed=3, max_tokens=16)["choices"][0]["message"]["content"]
        stop = full[4:6]
        cut = self.ask(seed=3, max_tokens=16, stop=[stop])["choices"][0]
        self.assertEqual((cut["message"]["content"], cut["finish_reason"]), (full[: full.index(stop)], "stop"))
        streamed = "".join(c["delta"].get("content", "") for e in self.events(seed=3, max_tokens=16, stop=stop) for c in e["choices"])
        self.assertEqual(streamed, full[: full.index(stop)])

    def test_completions_of_texts_and_tokens(self):
        answer = self.ask("/v1/completions", model="rein", prompt=["max(1)", "max(2)"], n=2, max_tokens=4, seed=1, ignore_eos=True, logprobs=1)
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        self.assertEqual(len(answer["choices"][0]["logprobs"]["token_logprobs"]), 4)
        tokens = self.ask("/v1/completions", prompt="max(1)", max_tokens=4, seed=1, ignore_eos=True, return_token_ids=True)["choices"][0]
        again = self.ask("/v1/completions", prompt=tokens["prompt_token_ids"], max_tokens=4, seed=1, ignore_eos=True)["choices"][0]
        self.assertEqual(again["text"], tokens["text"])

    def test_greedy_is_what_the_generator_says_without_a_service(self):
        (self.stack.folder / "p.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "max(1,2,3)"}]}) + "\n")
        model = pathlib.Path(self.stack.job("talks")["output"]) / "model"
        run = subprocess.run([BIN / "rein-rollout", "generate", "--model", model, "--input", self.stack.folder / "p.jsonl", "--output",
                              self.stack.folder / "o.jsonl", "--temperature", "0", "--max-tokens", "8"], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        line = json.loads((self.stack.folder / "o.jsonl").read_text())
        said = self.ask(temperature=0, ignore_eos=False, return_token_ids=True)["choices"][0]
        self.assertIn(said["token_ids"], list(line.values()), line)

    def test_models(self):
        models = json.loads(self.call("/v1/models")[1])["data"]
        self.assertEqual([m["id"] for m in models], ["talks"])
        self.assertEqual(self.call("/v1/models/rein")[0], 200)
        self.assertEqual(self.call("/v1/models/gpt")[0], 404)
        code, answer = self.call("/v1/chat/completions", {**ASK, "model": "gpt"})
        self.assertEqual((code, json.loads(answer)["error"]["code"]), (404, "model_not_found"))

    def test_bad_requests(self):
        for changes, param in (({"n": 0}, "n"), ({"tools": [{}]}, "tools"), ({"messages": "hi"}, "messages"), ({"temperature": "x"}, "temperature")):
            code, answer = self.call("/v1/chat/completions", {**ASK, **changes})
            self.assertEqual((code, json.loads(answer)["error"]["param"]), (400, param), answer)
        self.assertEqual(self.call("/v1/chat/completions", {**ASK, "messages": [{"role": "user", "content": "1," * 4000}]})[0], 400)

    def test_a_client_that_goes_away_frees_its_place(self):
        host, port = self.address.split(":")
        body = json.dumps({**ASK, "stream": True, "max_tokens": 200, "n": 8})
        for _ in range(5):
            with socket.create_connection((host, int(port))) as one:
                one.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                one.recv(64)
        deadline = time.time() + 20
        while time.time() < deadline:
            load = next(a for a in json.loads(self.stack.rein("get", "actors", "-o", "json"))["actors"] if a["role"] == "rollout").get("load", "")
            if load.startswith("0 running, 0 waiting"):
                break
            time.sleep(0.2)
        self.assertTrue(load.startswith("0 running, 0 waiting"), load)

    def test_many_at_once(self):
        answers = []
        threads = [threading.Thread(target=lambda i=i: answers.append((i, self.ask(seed=i)["choices"][0]["message"]["content"]))) for i in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 24)
        for i, text in answers[:4]:
            self.assertEqual(self.ask(seed=i)["choices"][0]["message"]["content"], text)

    @unittest.skipUnless(openai, "SKIPPED: the openai package is not installed: its client was NOT tried")
    def test_the_openai_package(self):
        client = openai.OpenAI(base_url=f"http://{self.address}/v1", api_key="none")
        self.assertEqual([m.id for m in client.models.list()], ["talks"])
        ask = dict(model="talks", messages=ASK["messages"], max_tokens=8, seed=4, extra_body={"ignore_eos": True})
        whole = client.chat.completions.create(**ask, n=2, logprobs=True)
        self.assertEqual(len(whole.choices), 2)
        self.assertEqual(len(whole.choices[0].logprobs.content), 8)
        pieces = ""
        for chunk in client.chat.completions.create(**ask, stream=True):
            pieces += chunk.choices[0].delta.content or ""
        self.assertEqual(pieces, whole.choices[0].message.content)
        text = client.completions.create(model="rein", prompt="max(1)", max_tokens=4)
        self.assertLessEqual(text.usage.completion_tokens, 4)
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(**{**ask, "model": "gpt"})
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(**ask, presence_penalty=1000)


if __name__ == "__main__":
    unittest.main(argv=["openai_test.py"])
