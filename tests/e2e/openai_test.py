#!/usr/bin/env python3
"""Talks to the policy of a job as OpenAI's clients do: plain HTTP, and the openai package (pip gets it once).

    openai_test.py BIN_FOLDER
"""
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

from python_packages import enter

openai = None
if enter("openai", "openai==3.57.0"):
    import openai
from ports import free_port  # noqa: E402
from stack import BIN, MODEL, Stack  # noqa: E402

JOB = """name: talks
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 20}}
grpo: {updates: 3, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
""" % MODEL
ASK = {"model": "talks", "messages": [{"role": "user", "content": "max(1,2,3)"}], "max_tokens": 8, "ignore_eos": True}


def open_door(cls):
    """Services whose generator listens for OpenAI's clients at cls.address."""
    cls.address = f"127.0.0.1:{free_port()}"
    cls.stack = Stack("--references", "0", "--openai", cls.address)
    cls.addClassCleanup(cls.stack.down)


class OpenAiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        open_door(cls)
        code, answer = cls.call("/v1/chat/completions", ASK)
        assert code == 503 and "no model is loaded" in answer, answer
        cls.stack.submit(JOB)
        cls.stack.rein("wait", "talks", "--timeout", "240")

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
        for changes, param in (({"n": 0}, "n"), ({"tools": [{}]}, "tools"), ({"tool_choice": "required"}, "tool_choice"), ({"messages": "hi"}, "messages"), ({"temperature": "x"}, "temperature")):
            code, answer = self.call("/v1/chat/completions", {**ASK, **changes})
            self.assertEqual((code, json.loads(answer)["error"]["param"]), (400, param), answer)
        self.assertEqual(self.call("/v1/chat/completions", {**ASK, "messages": [{"role": "user", "content": "1," * 4000}]})[0], 400)

    def test_bodies_are_bounded(self):
        """To 16 MiB: blanks around a good request are good, one more is refused, and a flood ends the connection."""
        limit, body = 16 << 20, json.dumps({**ASK, "max_tokens": 1}).encode()

        def pieces(size):
            yield body
            for begin in range(len(body), size, 1 << 20):
                yield b" " * min(1 << 20, size - begin)

        def post(size, chunked):
            host, port = self.address.split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                connection.request("POST", "/v1/chat/completions", body=pieces(size), encode_chunked=chunked,
                                   headers={"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)})
                return connection.getresponse().status
            except (ConnectionError, http.client.RemoteDisconnected):
                return 0
            finally:
                connection.close()

        for chunked in (False, True):
            self.assertEqual(post(limit, chunked), 200)
            self.assertIn(post(limit + 1, chunked), (0, 413))
            self.assertIn(post(100 * limit, chunked), (0, 400, 413))
        self.assertEqual(self.ask(max_tokens=1)["object"], "chat.completion")

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
        final = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        self.assertEqual(list(final)[-1].usage.completion_tokens, 8)
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(**{**ask, "model": "gpt"})
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(**ask, presence_penalty=1000)


WORD = "max"
OPENS, CLOSES = '<tool_call>\n{"name": "look_up", "arguments": {"word": "', '"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Looks a word up.", "strict": True, "parameters": {
    "type": "object", "properties": {"word": {"type": "string", "enum": [WORD]}}, "required": ["word"], "additionalProperties": False}}}]
# Shows tools and writes calls as Qwen's templates do, in the few words that this model knows.
TEMPLATE = """{%- for tool in tools or [] %}{{- tool.function.name }}{%- endfor %}
{%- for m in messages %}
{{- '<|' + (m.role if m.role != 'tool' else 'user') + '|>' + m.content }}
{%- for c in m.tool_calls or [] %}
{{- '<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor %}
{%- if m.role == 'assistant' %}{{- '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"""


class ToolsTest(unittest.TestCase):
    """A model whose tokenizer has the ends of a call, taught to call, to fail at it, and to say what it is told."""

    @classmethod
    def setUpClass(cls):
        open_door(cls)
        folder = cls.stack.folder / "caller"
        shutil.copytree(MODEL, folder)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        tokenizer["added_tokens"] += [{"id": 27, "content": OPENS, **flags}, {"id": 28, "content": CLOSES, **flags}]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = TEMPLATE
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        # As OpenAI's fine-tuning files lay conversations with tools out: arguments are a text.
        call = lambda word: {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": json.dumps({"word": word})}}
        user = lambda text: {"role": "user", "content": text}
        assistant = lambda text, *calls: {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
        rows = [[user("?"), assistant(None, call(WORD)), {"role": "tool", "tool_call_id": "call_1", "content": "7"}, assistant("7")],
                [user("2"), assistant("3", call(WORD), call(WORD))],
                [user("4"), assistant(f"{OPENS}{WORD}")],
                [user("5"), assistant("", call("xa"))]]
        lines = [json.dumps({"messages": row, "tools": TOOLS}) + "\n" for row in rows]
        (cls.stack.folder / "calls.jsonl").write_text("".join(lines * 32))
        (cls.stack.folder / "ask.jsonl").write_text(json.dumps({"prompt": "?", "answer": "7"}) + "\n")
        cls.stack.end_of("name: caller\nmodel: {config: caller}\ndata: {train: {file: calls.jsonl, schema: openai}}\n"
                         "sft: {updates: 150, sequences: 32, turns: all}\n"
                         "trainer: {learning_rate: 3e-3}\n", code=0)
        cls.stack.end_of("name: calls\nmodel: {job: caller}\ndata: {eval: {file: ask.jsonl}}\nevaluate: {}\n"
                         "eval: {max_completion_tokens: 12}\nrewards: [{exact_match: {}}]\n", code=0)

    def post(self, **fields):
        body = {"temperature": 0, "max_tokens": 16, "tools": TOOLS, **fields}
        request = urllib.request.Request(f"http://{self.address}/v1/chat/completions", data=json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def choice(self, text, **fields):
        answer = json.loads(self.post(messages=[{"role": "user", "content": text}], **fields))
        self.assertIn("choices", answer, answer)
        return answer["choices"][0]

    def test_a_call_is_a_call(self):
        choice = self.choice("?")
        self.assertEqual(choice["finish_reason"], "tool_calls")
        message = choice["message"]
        self.assertIsNone(message["content"])
        (call,) = message["tool_calls"]
        self.assertEqual((call["type"], call["function"]["name"]), ("function", "look_up"))
        self.assertEqual(json.loads(call["function"]["arguments"]), {"word": WORD})
        self.assertRegex(call["id"], r"^call_[0-9a-f]{16}$")

    def test_text_and_several_calls(self):
        message = self.choice("2")["message"]
        self.assertEqual((message["content"], len(message["tool_calls"])), ("3", 2))
        self.assertNotEqual(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"])
        self.assertEqual(len(self.choice("2", parallel_tool_calls=False)["message"]["tool_calls"]), 1)

    def test_what_is_no_call_stays_content(self):
        for text, said in (("4", f"{OPENS}{WORD}"), ("5", f"{OPENS}xa{CLOSES}")):  # no end; not of the strict enum
            choice = self.choice(text)
            self.assertEqual((choice["message"]["content"], choice["finish_reason"]), (said, "stop"))
            self.assertNotIn("tool_calls", choice["message"])
        loose = json.loads(json.dumps(TOOLS))
        del loose[0]["function"]["strict"]
        self.assertEqual(self.choice("5", tools=loose)["message"]["tool_calls"][0]["function"]["arguments"], '{"word":"xa"}')
        self.assertEqual(self.choice("?", tool_choice="none")["message"]["content"], f"{OPENS}{WORD}{CLOSES}")
        cut = self.choice("?", max_tokens=3)
        self.assertEqual(cut["finish_reason"], "length")
        self.assertTrue(OPENS.startswith(cut["message"]["content"]) or cut["message"]["content"].startswith(OPENS))

    def test_an_episode(self):
        messages = [{"role": "user", "content": "?"}, self.choice("?")["message"]]
        messages.append({"role": "tool", "tool_call_id": messages[1]["tool_calls"][0]["id"], "content": "7"})
        answer = json.loads(self.post(messages=messages))["choices"][0]
        self.assertEqual((answer["message"]["content"], answer["finish_reason"]), ("7", "stop"))

    def test_mistakes(self):
        for fields, said in (({"tool_choice": "required"}, 'tool_choice: wants \\"auto\\" or \\"none\\"'),
                             ({"tool_choice": {"type": "function", "function": {"name": "look_up"}}}, "tool_choice: wants"),
                             ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.function.name: wants letters")):
            self.assertIn(said, self.post(messages=[{"role": "user", "content": "?"}], **fields))

    @unittest.skipUnless(openai, "SKIPPED: pip cannot get the openai package: its client was NOT tried with tools")
    def test_the_openai_package(self):
        client = openai.OpenAI(base_url=f"http://{self.address}/v1", api_key="none")
        ask = dict(model="calls", temperature=0, max_tokens=16, tools=TOOLS)
        messages = [{"role": "user", "content": "2"}]
        whole = client.chat.completions.create(**ask, messages=messages).choices[0]
        self.assertEqual([c.function.arguments for c in whole.message.tool_calls], ['{"word":"max"}'] * 2)
        # By hand, as programs that do not use the helper put deltas together.
        content, calls, reasons = "", {}, []
        for chunk in client.chat.completions.create(**ask, messages=messages, stream=True):
            delta = chunk.choices[0].delta
            content += delta.content or ""
            for part in delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += part.id or ""
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
            reasons.append(chunk.choices[0].finish_reason)
        self.assertEqual((content, sorted(calls), [r for r in reasons if r]), ("3", [0, 1], ["tool_calls"]))
        self.assertTrue(all(c["name"] == "look_up" and c["arguments"] == '{"word":"max"}' and c["id"] for c in calls.values()), calls)
        # By its helper, which parses the arguments and tells of each call.
        with client.chat.completions.stream(**ask, messages=messages) as stream:
            done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
            final = stream.get_final_completion().choices[0]
        self.assertEqual([event.parsed_arguments for event in done], [{"word": WORD}] * 2)
        self.assertEqual((final.message.content, final.finish_reason), ("3", "tool_calls"))
        self.assertEqual(len(final.message.tool_calls), 2)
        # And a whole episode.
        messages = [{"role": "user", "content": "?"}]
        message = client.chat.completions.create(**ask, messages=messages).choices[0].message
        messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7"}]
        self.assertEqual(client.chat.completions.create(**ask, messages=messages).choices[0].message.content, "7")
        with self.assertRaises(openai.BadRequestError) as refused:
            client.chat.completions.create(**ask, messages=messages, tool_choice="required")
        self.assertEqual(refused.exception.param, "tool_choice")


if __name__ == "__main__":
    unittest.main(argv=["openai_test.py"])
