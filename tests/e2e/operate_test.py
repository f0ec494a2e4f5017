#!/usr/bin/env python3
"""Operates a locked stack as its users do: certificates, tokens, tenants, the page, and every command about what jobs leave.

    operate_test.py BIN_FOLDER

All ports are open to other machines and secured; a real job runs over them.
"""
import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import pty
import re
import resource
import select
import signal
import socketserver
import ssl
import struct
import subprocess
import tarfile
import threading
import time
import unittest
import urllib.error
import urllib.request
import fcntl
import termios

from folders import temporary_folder
from stack import BIN, MODEL, Stack, environment

JOB = """name: first
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 20}}
grpo: {updates: 4, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
checkpoint: {every: 2}
""" % MODEL


class OperateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack.__new__(Stack)
        cls.stack.temporary = temporary_folder()
        cls.folder = cls.stack.folder = pathlib.Path(cls.stack.temporary.name)
        cls.stack.environment = environment(cls.folder)
        root = pathlib.Path(__file__).resolve().parents[2]
        subprocess.run([root / "deploy/make_digits", cls.folder / "data"], check=True)
        cls.stack.rein("certs", "init", "--dir", "certs", "--user", "grace:viewer:maths")
        cls.tokens = {}
        for user, role, tenant in (("ada", "submitter", "maths"), ("bob", "submitter", "physics"), ("eve", "viewer", "maths")):
            run = cls.stack.run("token", "add", user, "--role", role, "--tenant", tenant, "--file", "tokens.json")
            cls.tokens[user] = run.stdout.strip()
            (cls.folder / f"{user}.token").write_text(cls.tokens[user] + "\n")
        cls.stack.rein("up", "--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0", "--tls", "certs", "--tokens", "tokens.json",
                       "--references", "0")
        cls.addClassCleanup(cls.stack.down)
        context = json.loads((cls.folder / "home/context.json").read_text())
        cls.server, cls.admin = context["controller"], context["admin"]
        for user in cls.tokens:
            cls.stack.rein("context", "set", user, "--server", cls.server, "--ca", "certs/ca.crt", "--token-file", f"{user}.token")
        (cls.folder / "job.yaml").write_text(JOB)
        for name, more in (("first", ()), ("second", ("trainer.learning_rate=2e-3", "seed=2"))):
            cls.stack.rein("--context", "ada", "submit", "-f", "job.yaml", "--name", name, *absolute(cls.folder), *more)
        for name in ("first", "second"):
            cls.stack.rein("--context", "ada", "wait", name, "--timeout", "240")

    def rein(self, *arguments, user="ada", code=0):
        return self.stack.rein("--context", user, *arguments, code=code)

    def http(self, path, token=None, client=None, method="GET", data=None):
        context = ssl.create_default_context(cafile=self.folder / "certs/ca.crt")
        if client:
            context.load_cert_chain(self.folder / f"certs/user/{client}/tls.crt", self.folder / f"certs/user/{client}/tls.key")
        request = urllib.request.Request(f"https://{self.admin}{path}", method=method, data=data)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def test_who_is_let_in(self):
        stranger = self.stack.run("--server", self.server, "--ca", "certs/ca.crt", "get", "jobs")
        self.assertEqual(stranger.returncode, 6, stranger.stderr)
        self.assertIn("a token or a certificate is wanted", stranger.stderr)
        (self.folder / "wrong.token").write_text("rein_" + "0" * 64)
        wrong = self.stack.run("--server", self.server, "--ca", "certs/ca.crt", "--token-file", "wrong.token", "get", "jobs")
        self.assertEqual(wrong.returncode, 6, wrong.stderr)
        self.assertNotIn("0" * 64, wrong.stdout + wrong.stderr)
        self.assertEqual(self.stack.run("--server", self.server, "get", "jobs", "--tls", "certs/user/grace").returncode, 0)
        plain = self.stack.run("--server", self.server, "get", "jobs")  # loopback, no TLS: the server does not answer that
        self.assertEqual(plain.returncode, 7, plain.stderr)
        other = self.stack.run("--server", "192.0.2.1:7000", "get", "jobs")
        self.assertEqual(other.returncode, 3, other.stderr)
        self.assertIn("is another machine", other.stderr)

    def certificate(self, name, *names, days="0"):
        """A folder with a certificate of this stack's authority for these names; of no days: it has expired."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "names").write_text("subjectAltName=" + ",".join(names))
        openssl = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-subj", f"/CN={name}", "-out", "request")
        openssl("x509", "-req", "-in", "request", "-CA", self.folder / "certs/ca.crt", "-CAkey", self.folder / "certs/ca.key", "-set_serial", "7",
                "-days", days, "-extfile", "names", "-out", "tls.crt")
        (folder / "ca.crt").write_bytes((self.folder / "certs/ca.crt").read_bytes())
        return folder

    def served(self, folder):
        """The port of a server with the certificate of the folder. Each connection has its thread: a client may leave one in its midst."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.set_alpn_protocols(["h2"])

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as line:
                    while line.recv(4096):
                        pass

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def test_certificates_that_are_wrong_are_named_with_the_next_step(self):
        ask = lambda server, *more: self.stack.run("--server", server, "get", "jobs", *more)
        late = self.certificate("late", "URI:spiffe://rein/user/maths/late/viewer")
        time.sleep(1.1)
        run = ask(self.server, "--tls", "late")
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertIn("late/tls.crt is not valid under late/ca.crt: certificate has expired; rein certs init makes new ones", run.stderr)
        service = ("URI:spiffe://rein/service/controller", "DNS:localhost", "IP:127.0.0.1")
        port = self.served(self.certificate("ended", *service))
        time.sleep(1.1)
        run = ask(f"127.0.0.1:{port}", "--ca", "certs/ca.crt")
        self.assertEqual(run.returncode, 7, run.stderr)
        self.assertRegex(run.stderr, rf"^error: the certificate of 127\.0\.0\.1:{port} has expired \(.* GMT\): whoever runs it makes a new one with rein certs init\n$")
        port = self.served(self.certificate("elsewhere", service[0], "DNS:gpu.lab", "IP:192.0.2.7", days="1"))
        run = ask(f"127.0.0.1:{port}", "--ca", "certs/ca.crt")
        self.assertIn(f"the certificate of 127.0.0.1:{port} is for gpu.lab, 192.0.2.7: call it by one of these, or make one with rein certs init --host", run.stderr)
        self.stack.rein("certs", "init", "--dir", "other")
        run = ask(self.server, "--ca", "other/ca.crt")
        self.assertEqual(run.returncode, 7, run.stderr)
        self.assertRegex(run.stderr, r"the certificate of \S+ is not of the authority in other/ca\.crt \(.*\): ask whoever runs it for its ca\.crt")

    def test_a_context_that_is_wrong_is_named(self):
        self.assertRegex(self.stack.run("--context", "adda", "get", "jobs").stderr, r"no context adda in \S+/config\.yaml; did you mean ada\?")
        self.stack.rein("context", "set", "gone", "--server", "127.0.0.1:9", "--ca", "certs/ca.crt")
        self.assertIn("no answer from the controller at 127.0.0.1:9", self.stack.rein("--context", "gone", "get", "jobs", code=7))
        self.stack.rein("context", "set", "nofile", "--server", self.server, "--ca", "nowhere.crt")
        self.assertRegex(self.stack.rein("--context", "nofile", "get", "jobs", code=4), r"cannot read the authority \S*nowhere\.crt")

    def test_work_goes_on_with_a_new_token(self):
        """A token expires or is taken back in the middle of work: the next call says so, and the same command with a new one goes on."""
        self.rein("submit", "-f", "job.yaml", "--name", "outlasting", *absolute(self.folder), "grpo.updates=5000", "checkpoint.every=5000")
        run = self.stack.run("token", "add", "temp", "--role", "submitter", "--tenant", "maths", "--file", "tokens.json")
        (self.folder / "temp.token").write_text(run.stdout)
        self.stack.rein("context", "set", "temp", "--server", self.server, "--ca", "certs/ca.crt", "--token-file", "temp.token")
        time.sleep(1.2)
        self.stack.rein("--context", "temp", "pause", "outlasting")
        known = json.loads((self.folder / "tokens.json").read_text())
        next(one for one in known["tokens"] if one["user"] == "temp")["expires"] = "2020-01-01T00:00:00Z"
        (self.folder / "tokens.json").write_text(json.dumps(known))
        time.sleep(1.2)
        self.assertIn("expired at 2020-01-01", self.stack.rein("--context", "temp", "resume", "outlasting", code=6))
        self.stack.rein("token", "revoke", "temp", "--file", "tokens.json")
        run = self.stack.run("token", "add", "temp", "--role", "submitter", "--tenant", "maths", "--file", "tokens.json")
        (self.folder / "temp.token").write_text(run.stdout)
        time.sleep(1.2)
        self.stack.rein("--context", "temp", "wait", "outlasting", "--for", "state=paused", "--timeout", "240")
        done = int(self.stack.job("outlasting").get("update", 0))
        self.stack.rein("--context", "temp", "resume", "outlasting")
        self.stack.wait_for_update("outlasting", done + 2)
        self.stack.rein("--context", "temp", "cancel", "outlasting")

    def test_tenants_and_roles(self):
        self.assertEqual(self.rein("get", "jobs", "-o", "name"), "second\nfirst\n")
        self.assertEqual(self.rein("get", "jobs", "-o", "name", user="eve"), "second\nfirst\n")
        self.assertEqual(self.rein("get", "jobs", "-o", "name", user="bob"), "")
        self.assertIn("no job first", self.rein("describe", "first", user="bob", code=4))
        self.assertIn("a user with the role submitter may", self.rein("cancel", "first", user="eve", code=6))
        self.assertEqual(self.stack.rein("get", "jobs", "-o", "name"), "second\nfirst\n", "who ran rein up is an admin")
        self.assertIn("maths", json.loads(self.rein("get", "job", "first", "-o", "json"))["owner"])

    def test_the_page_asks_who_is_there(self):
        self.assertEqual(self.http("/healthz")[0], 200)
        self.assertEqual(self.http("/")[0], 200)
        for path in ("/api/jobs", "/metrics", "/api/jobs/first/rollouts", "/api/targets"):
            self.assertEqual(self.http(path)[0], 401, path)
            self.assertEqual(self.http(path, token="rein_wrong")[0], 401, path)
            self.assertEqual(self.http(path, token=self.tokens["eve"])[0], 200, path)
            self.assertEqual(self.http(path, client="grace")[0], 200, path)
        self.assertEqual(self.http("/api/jobs/first", token=self.tokens["bob"])[0], 404)
        self.assertEqual(json.loads(self.http("/api/jobs", token=self.tokens["bob"])[1]).get("jobs", []), [])
        listed = lambda query, user="ada": json.loads(self.http(f"/api/jobs?{query}", token=self.tokens[user])[1])
        newest = listed("limit=1")
        self.assertEqual(([job["name"] for job in newest["jobs"]], newest["matching"]), (["second"], 2))
        self.assertEqual([job["name"] for job in listed("contains=irs")["jobs"]], ["first"])
        self.assertEqual(listed("contains=irs", "bob"), {"matching": 0})
        self.assertEqual(self.http("/api/jobs?limit=x", token=self.tokens["ada"])[0], 400)
        status, _, headers = self.http("/login", method="POST", data=self.tokens["eve"].encode())
        self.assertEqual(status, 200)
        for part in ("HttpOnly", "Secure", "SameSite=Strict"):
            self.assertIn(part, headers["Set-Cookie"])
        self.assertEqual(self.http("/login", method="POST", data=b"a; b\r\nSet-Cookie: x")[0], 400)
        for path in ("/../etc/passwd", "/api/jobs/..%2f..%2fetc", "/api/jobs/first/rollouts?update=x", "/api/jobs//updates"):
            self.assertIn(self.http(path, token=self.tokens["ada"])[0], (400, 404), path)

    def test_a_kept_connection_is_answered_at_once(self):
        """Not after the 40 ms for which a client's system may hold back its acknowledgement."""
        line = http.client.HTTPSConnection(self.admin, context=ssl.create_default_context(cafile=self.folder / "certs/ca.crt"))
        seconds = []
        for _ in range(60):
            began = time.perf_counter()
            line.request("GET", "/api/jobs?limit=1", headers={"Authorization": f"Bearer {self.tokens['ada']}"})
            answer = line.getresponse()
            answer.read()
            seconds.append(time.perf_counter() - began)
            self.assertEqual(answer.status, 200)
            time.sleep(0.01)
        line.close()
        self.assertLess(sorted(seconds)[20], 0.025, "on a busy machine some take longer, not two of three")

    def test_a_policy_answers_whom_it_may(self):
        def talk(user=None, model="second", client=None, **fields):
            body = {"model": model, "messages": [{"role": "user", "content": "max(1,2)"}], "max_tokens": 4, **fields}
            status, text, _ = self.http("/v1/chat/completions", token=user and self.tokens[user], client=client, method="POST", data=json.dumps(body).encode())
            return status, json.loads(text) if text.startswith("{") else text
        status, answer = talk("ada")
        self.assertEqual(status, 200, answer)
        self.assertEqual((answer["model"], answer["choices"][0]["policy_version"]["number"]), ("second", 4))
        status, events = talk("ada", stream=True)
        self.assertEqual((status, events.strip().splitlines()[-1]), (200, "data: [DONE]"))
        self.assertEqual(talk()[0], 401)
        status, answer = talk("eve")
        self.assertEqual(status, 403, answer)
        self.assertIn("submitter", json.dumps(answer))
        self.assertEqual(talk(client="grace")[0], 403)
        status, answer = talk("bob")
        self.assertEqual((status, answer["error"]["code"]), (404, "model_not_found"), "another tenant's")
        self.assertNotIn("loaded", answer["error"]["message"])
        status, answer = talk("ada", model="first")
        self.assertEqual(status, 404)
        self.assertIn("the policy of first is loaded nowhere", answer["error"]["message"])
        self.assertNotIn("second", answer["error"]["message"])
        for fields, param in (({"model": 3}, "model"), ({"n": 0}, "n"), ({"tool_choice": "required"}, "tool_choice")):
            status, answer = talk("ada", **fields)
            self.assertEqual((status, answer["error"]["param"]), (400, param), answer)
        self.assertEqual(self.http("/v1/chat/completions", token=self.tokens["ada"], method="POST", data=b"x" * (2 << 20))[0], 413)

    def test_metrics_and_comparison(self):
        rows = list(csv.DictReader(io.StringIO(self.rein("metrics", "first", "--csv"))))
        self.assertEqual([row["update"] for row in rows], ["1", "2", "3", "4"])
        self.assertAlmostEqual(float(rows[0]["reward"]), self.stack.metrics("first")[0]["reward"])
        self.assertEqual(self.rein("metrics", "first", "--keys", "reward,entropy", "--last", "2").splitlines()[0].split(),
                         ["UPDATE", "REWARD", "ENTROPY"])
        self.assertIn("did you mean entropy?", self.rein("metrics", "first", "--keys", "entropi", code=3))
        lines = self.rein("metrics", "first", "-o", "json").splitlines()
        self.assertEqual(json.loads(lines[3])["update"], 4)
        text = self.rein("compare", "first", "second")
        self.assertIn("DIFFERENCE", text)
        self.assertRegex(text, r"- +learning_rate: 0.001\n\+ +learning_rate: 0.002")
        self.assertIn("no job third", self.rein("compare", "first", "third", code=4))

    def test_waiting_for_a_state_or_an_update(self):
        self.assertIn("first is at state=succeeded", self.rein("wait", "first", "--for", "state=succeeded"))
        self.assertIn("first is at update=3", self.rein("wait", "first", "--for", "update=3"))
        self.assertIn("ended without update=99", self.rein("wait", "first", "--for", "update=99", code=1))
        self.assertIn("wants end, state=NAME", self.rein("wait", "first", "--for", "state=happy", code=3))
        self.rein("submit", "-f", "job.yaml", "--name", "watched", *absolute(self.folder), "grpo.updates=3", "seed=5")
        self.rein("wait", "watched", "--for", "update=1", "--timeout", "240")
        self.assertGreaterEqual(int(self.stack.job("watched")["update"]), 1)
        self.rein("wait", "watched", "--timeout", "240")

    def test_log_lines_of_the_last_while(self):
        lines = self.rein("logs", "first", "--since", "1d")
        self.assertGreater(len(lines.splitlines()), 2)
        self.assertEqual(lines, self.rein("logs", "first"))
        self.assertEqual(self.rein("logs", "first", "--since", "0s"), "")
        self.assertIn("wants an age", self.rein("logs", "first", "--since", "soon", code=3))

    def test_a_timeline_for_the_trace_viewer(self):
        self.assertIn("wrote t.json: 4 updates", self.rein("trace", "first", "--to", "t.json"))
        slices = [e for e in json.loads((self.folder / "t.json").read_text())["traceEvents"] if e["ph"] == "X"]
        names = [e["name"] for e in slices]
        self.assertEqual(names.count("generate") >= 32 and names.count("train"), 4)  # 8 groups an update, and held-out prompts
        self.assertLessEqual({"score", "publish", "save", "update 1", "update 4"}, set(names))
        self.assertTrue(all(e["ts"] >= 0 and e["dur"] >= 0 for e in slices))
        train = [e for e in slices if e["name"] == "train"]
        self.assertTrue(all(a["ts"] + a["dur"] <= b["ts"] + 1 for a, b in zip(train, train[1:])))
        self.rein("trace", "nothing", code=4)

    def test_rollouts_by_what_they_are(self):
        everything = json.loads(self.rein("rollouts", "first", "--update", "2", "--limit", "1000", "-o", "json"))
        self.assertEqual(everything["matching"], 32)
        one = everything["rollouts"][5]["rollout"]
        prompt, text = one["group"].get("prompt", 0), one["completion"].get("text", "")
        same = json.loads(self.rein("rollouts", "first", "--update", "2", "--prompt", str(prompt), "-o", "json"))["rollouts"]
        self.assertEqual({r["rollout"]["group"].get("prompt", 0) for r in same}, {prompt})
        self.assertEqual(len(same), 4)
        good = json.loads(self.rein("rollouts", "first", "--update", "2", "--min-reward", "0.5", "-o", "json")).get("rollouts", [])
        self.assertTrue(all(r["rollout"]["reward"]["reward"] >= 0.5 for r in good))
        says = json.loads(self.rein("rollouts", "first", "--update", "2", "--contains", text, "--limit", "1000", "-o", "json"))["rollouts"]
        self.assertTrue(says and all(text in r["rollout"]["completion"].get("text", "") for r in says))
        self.assertIn("no rollouts match", self.rein("rollouts", "first", "--update", "2", "--contains", "never said this"))
        self.rein("rollouts", "first", "--finish", "late", code=2)
        self.assertIn("no prompt was in both update 1 and update 2", self.rein("rollouts", "first", "--update", "1", "--diff", "2"))
        self.assertIn("prompts in both first update 4 and first update 4",
                      self.rein("rollouts", "first", "--diff", "first"))

    def test_where_trainer_and_generator_begin_to_differ(self):
        self.rein("submit", "-f", "job.yaml", "--name", "traced", *absolute(self.folder), "grpo.updates=2")
        self.rein("wait", "traced", "--timeout", "240")
        reply = json.loads(self.rein("debug", "mismatch", "traced", "-o", "json"))
        self.assertEqual([trace["error"] for trace in reply["traces"] if trace.get("error")], [])
        traces = {trace["actor"]: trace["trace"] for trace in reply["traces"]}
        self.assertEqual({actor: trace.get("in_steps", False) for actor, trace in traces.items()},
                         {"trainer-0": False, "rollout-0": True})
        trainer, rollout = traces["trainer-0"], traces["rollout-0"]
        self.assertEqual((trainer["version"], trainer["digest"]), (rollout["version"], rollout["digest"]))
        tokens = len(reply["rollout"]["rollout"]["prompt_token_ids"]) + len(reply["rollout"]["rollout"]["completion"]["token_ids"])
        self.assertEqual(len(trainer["state_digests"]), trainer["stages"] * tokens)
        for ours, theirs in zip(trainer["logprobs"], rollout["logprobs"], strict=True):
            self.assertAlmostEqual(ours, theirs, places=4)
        text = self.rein("debug", "mismatch", "traced", "--update", "2", "--sibling", "1")
        self.assertRegex(text, r"update 2 · prompt \d+ · sibling 1 · policy 1\.1 · \d+ \+ \d tokens\n")
        self.assertIn("token by token  not comparable: 1.1 sampled it", text)
        self.assertRegex(text, r"trainer-0 and rollout-0: log-probs (equal in all|differ in) \d")
        self.assertRegex(self.rein("debug", "mismatch", "first"), r"(is not loaded|the call is for 'first')")
        self.assertIn("update 2 has no such rollout", self.rein("debug", "mismatch", "traced", "--update", "2", "--prompt", "99999999", code=4))
        self.rein("debug", "mismatch", "traced", user="bob", code=4)

    def test_checkpoints_and_exports(self):
        self.assertEqual(self.rein("checkpoint", "list", "first", "-o", "name"), "1\n2\n")
        self.rein("export", "first", "--to", "out")
        names = {path.name for path in (self.folder / "out").iterdir()}
        self.assertEqual(names, {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
        self.assertIn("is there already", self.rein("export", "first", "--to", "out", code=5))
        self.rein("checkpoint", "export", "first", "1", "--to", "out1")
        source = next(c for c in self.stack.job("first")["checkpoints"] if c["number"] == 1)["path"]
        self.assertTrue((self.folder / "out1/model.safetensors").read_bytes() == pathlib.Path(source, "model.safetensors").read_bytes())
        self.assertFalse((self.folder / "out1/optimizer.safetensors").exists())
        self.assertIn("it has 1, 2", self.rein("export", "first", "--checkpoint", "7", "--to", "out7", code=4))
        self.assertIn("nothing was deleted", self.rein("checkpoint", "delete", "first", "1", code=2))
        self.rein("checkpoint", "delete", "first", "1", "--yes")
        self.assertEqual(self.rein("checkpoint", "list", "first", "-o", "name"), "2\n")
        self.assertIn("it has 2", self.rein("checkpoint", "delete", "first", "1", "--yes", code=4))

    def test_doctor_and_bundle_without_secrets(self):
        run = self.stack.run("--context", "ada", "doctor")
        self.assertRegex(run.stdout, r"ok +server +127.0.0.1:\d+ answers in \d+ ms")
        self.assertRegex(run.stdout, r"ok +clock")
        self.rein("debug", "bundle", "first", "--to", "bundle.tar.gz")
        with tarfile.open(self.folder / "bundle.tar.gz") as bundle:
            text = "\n".join(bundle.extractfile(m).read().decode() for m in bundle if m.isfile())
            files = {pathlib.PurePath(m.name).name for m in bundle if m.isfile()}
        self.assertLessEqual({"doctor.txt", "server.json", "job.json", "ledger.json", "metrics.csv", "events.json"}, files)
        self.assertIn("group_size: 4", text)
        for token in self.tokens.values():
            self.assertNotIn(token, text)
        self.assertNotIn("PRIVATE KEY", text)

    def test_no_token_lies_anywhere(self):
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix not in (".token", ".gz"):
                content = path.read_bytes()
                for token in self.tokens.values():
                    self.assertNotIn(token.encode(), content, path)
        for pid in self.stack.pids():
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            for token in self.tokens.values():
                self.assertNotIn(token.encode(), command)

    def test_a_crash_leaves_no_core_file(self):
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
        if pattern.startswith(("|", "/")):
            self.skipTest(f"core files go to {pattern}")
        reward = self.stack.pid("reward-0")
        self.assertEqual(resource.prlimit(reward, resource.RLIMIT_CORE), (0, 0))
        where = pathlib.Path(os.readlink(f"/proc/{reward}/cwd"))
        os.kill(reward, signal.SIGSEGV)
        for _ in range(200):
            if self.stack.pid("reward-0") != reward:
                break
            time.sleep(0.05)
        self.assertFalse([path for path in where.glob("core*") if path.is_file()])
        for _ in range(200):  # the tests that follow find it back
            if "READY" in self.stack.rein("get", "actors", "reward-0"):
                break
            time.sleep(0.05)

    def test_the_audit_log(self):
        self.rein("cancel", "first", user="eve", code=6)
        path = self.folder / "home/audit.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.assertIn(("user ada", "Submit", "first", "OK"), [(l["who"], l["action"], l["object"], l["result"]) for l in lines])
        self.assertIn(("user eve", "/rein.v1.ControllerService/Cancel", "PERMISSION_DENIED"), [(l["who"], l["action"], l["result"]) for l in lines])
        self.assertIn("hold together", self.stack.rein("audit", "verify", str(path)))
        forged = self.folder / "forged.jsonl"
        forged.write_text(path.read_text().replace("user ada", "user eve", 1))
        self.assertIn("was changed", self.stack.rein("audit", "verify", str(forged), code=1))

    def test_deleting_and_collecting(self):
        self.rein("submit", "-f", "job.yaml", "--name", "doomed", *absolute(self.folder), "grpo.updates=5000", "checkpoint.every=5000")
        self.assertIn("cancel it before", self.rein("delete", "doomed", "--yes", code=5))
        self.rein("cancel", "doomed")
        self.assertIn("doomed", self.rein("gc", "--older-than", "0s", "--dry-run"))
        self.assertIn("no job ended", self.rein("gc", "--older-than", "1d"))
        self.assertIn("nothing was deleted", self.rein("gc", "--older-than", "0s", code=2))
        self.rein("gc", "--older-than", "0s", "--yes")
        self.assertNotIn("doomed", self.rein("get", "jobs", "-o", "name"))
        self.assertIn("wants an age", self.rein("gc", "--older-than", "soon", code=3))

    def test_a_revoked_token_is_out(self):
        run = self.stack.run("token", "add", "mallory", "--role", "admin", "--file", "tokens.json")
        (self.folder / "mallory.token").write_text(run.stdout)
        time.sleep(1.2)
        arguments = ("--server", self.server, "--ca", "certs/ca.crt", "--token-file", "mallory.token", "get", "jobs")
        self.assertEqual(self.stack.run(*arguments).returncode, 0)
        self.assertIn("1 token revoked", self.stack.rein("token", "revoke", "mallory", "--file", "tokens.json"))
        time.sleep(1.2)
        self.assertEqual(self.stack.run(*arguments).returncode, 6)
        self.assertNotIn("mallory", self.stack.rein("token", "list", "--file", "tokens.json"))

    def terminal(self, columns, *arguments):
        """What a command shows on a terminal of so many columns."""
        pid, master = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.chdir(self.folder)
            os.execve(BIN / "rein", ["rein", "--context", "ada", *arguments], dict(self.stack.environment, TERM="xterm"))
        shown, end = b"", time.time() + 30
        while time.time() < end:
            ready, _, _ = select.select([master], [], [], 1)
            if not ready:
                continue
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.waitpid(pid, 0)
        os.close(master)
        return shown.decode()

    def test_on_a_terminal_lines_fit(self):
        for columns in (80, 200):
            # Of the last drawing: what was drawn over is gone.
            shown = re.split(r"\x1b\[\d+A\x1b\[J", self.terminal(columns, "watch", "first"))[-1]
            lines = [re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", line) for line in shown.replace("\r", "").split("\n")]
            self.assertTrue(any("GRPO  SUCCEEDED  update 4/4" in line for line in lines), shown)
            self.assertLessEqual(max(map(len, lines)), columns)
            table = self.terminal(columns, "metrics", "first").replace("\r", "").split("\n")
            self.assertLessEqual(max(map(len, table[:5])), columns)
            self.assertEqual(any("no room for" in line for line in table), columns == 80)
        self.assertNotIn("\x1b", self.rein("watch", "first"), "no cursor movement into a pipe")


def absolute(folder):
    """Paths of the data: a controller that others reach takes no folder from its callers."""
    return [f"data.train.file={folder}/data/train.jsonl", f"data.eval.file={folder}/data/eval.jsonl"]


if __name__ == "__main__":
    unittest.main(argv=["operate_test.py"])
