#!/usr/bin/env python3
"""Types what a user types: right and wrong commands, their texts and their exit codes.

    command_line_test.py BIN_FOLDER

Needs the controller and the trainer only; no job is run.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import unittest

from folders import temporary_folder
from stack import BIN, MODEL, ROOT, alive, environment

JOB = """name: digits
model: {config: %s}
data: {train: train.jsonl}
grpo: {updates: 2}
rewards: [{exact_match: {}}]
""" % MODEL

# Threads are slow to call OpenSSL, and the process to end: what they call after its cleanup at exit is written down.
WATCHED_OPENSSL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int cleaned;
static void Linger(void) { usleep(500000); }
__attribute__((constructor)) static void Start(void) { atexit(&Linger); }
static void Watch(const char* name) {
  if (syscall(SYS_gettid) != getpid()) usleep(100000);
  dprintf(STDERR_FILENO, "%s%s\n", name, cleaned ? " after cleanup" : "");
}
#define WATCHED(result, name) \
  result name(void* of) { \
    Watch(#name); \
    return ((result (*)(void*))dlsym(RTLD_NEXT, #name))(of); \
  }
WATCHED(int, SSL_do_handshake)
WATCHED(void, SSL_free)
WATCHED(void, SSL_CTX_free)
void OPENSSL_cleanup(void) {
  ((void (*)(void))dlsym(RTLD_NEXT, "OPENSSL_cleanup"))();
  cleaned = 1;
}
"""


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        temporary = temporary_folder()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.environment = environment(self.folder)
        (self.folder / "train.jsonl").write_text('{"prompt": "max(1,2,3)", "answer": "3"}\n')
        (self.folder / "job.yaml").write_text(JOB)

    def rein(self, *arguments, code=0, **options):
        run = subprocess.run([BIN / "rein", *arguments], env=self.environment, cwd=self.folder, capture_output=True,
                             text=True, timeout=60, **options)
        self.assertEqual(run.returncode, code, f"rein {arguments}\n{run.stdout}{run.stderr}")
        return run.stdout + run.stderr

    def up(self, *more, listen="127.0.0.1:0", rollouts="0", code=0):
        self.addCleanup(lambda: self.rein("down"))
        return self.rein("up", "--listen", listen, "--admin", "127.0.0.1:0", "--rollouts", rollouts, "--references", "0",
                         "--rewards", "0", *more, code=code)

    def pids(self):
        return [int(path.read_text()) for path in (self.folder / "home/run").glob("*.pid")]

    def test_without_a_server(self):
        self.assertIn("rein up", self.rein("get", "jobs", code=7))
        self.assertIn("no answer from the controller at 127.0.0.1:9", self.rein("get", "jobs", "--server", "127.0.0.1:9", code=7))
        self.assertIn("no answer from the controller at 127.0.0.1:9", self.rein("doctor", "--server", "127.0.0.1:9", code=1))
        self.rein("debug", "bundle", "--server", "127.0.0.1:9", "--to", "bundle.tar.gz")
        self.assertIn("nothing is up", self.rein("down"))
        self.assertIn("rein 0.", self.rein("version"))
        self.assertRegex(self.rein("--version"), r"^rein 0\.\d+\.\d+ \(\S+, \w+\)\n$")
        self.assertIn("flavour", json.loads(self.rein("version", "-o", "json")))

    def test_openssl_is_not_called_after_its_cleanup(self):
        """Where it is, what a command ends with may be a segmentation fault."""
        if "REIN_SANITIZE:STRING=\n" not in (BIN.parent / "CMakeCache.txt").read_text():
            self.skipTest("a library cannot be loaded before a sanitizer's")
        (self.folder / "watched.c").write_text(WATCHED_OPENSSL)
        subprocess.run(["cc", "-shared", "-fPIC", "watched.c", "-o", "watched.so"], cwd=self.folder, check=True)
        self.rein("certs", "init", "--dir", "certs", "--user", "ada:admin")
        with socket.create_server(("127.0.0.1", 0)) as server:
            def close_all():
                with contextlib.suppress(OSError):  # the test is over
                    while True:
                        server.accept()[0].close()
            threading.Thread(target=close_all, daemon=True).start()
            self.environment["LD_PRELOAD"] = str(self.folder / "watched.so")
            text = self.rein("--server", f"127.0.0.1:{server.getsockname()[1]}", "--tls", "certs/user/ada", "get", "jobs", code=7)
        self.assertIn("SSL_do_handshake\n", text)
        self.assertNotIn("after cleanup", text)

    def test_wrong_usage(self):
        self.assertIn("did you mean rein watch?", self.rein("wacth", code=2))
        self.rein("submit", code=2)
        self.rein("get", "jobs", "-o", "xml", code=2)
        for flag, wanted in (("--trainers=0", "1 to 1024"), ("--rollouts=-1", "0 to 1024"), ("--threads=-1", "0 to 1048576")):
            name, value = flag.split("=")
            self.assertIn(f"{name}: Value {value} not in range {wanted}", self.rein("up", flag, "--check", code=2))
        self.assertIn("Usage: rein", self.rein("--help"))

    def test_a_program_goes_by_its_name(self):
        ask = lambda *words: subprocess.run([BIN / "rein-control", *words], capture_output=True, text=True)
        self.assertRegex(ask("rein-reward", "--version").stdout, r"^rein-reward 0\.")
        wrong = ask("get", "jobs")
        self.assertEqual(wrong.returncode, 2)
        self.assertRegex(wrong.stderr, r"^error: \S+/rein-control: call it by the name of a program in it, .*: rein-controller rein-reward rein\n$")

    def test_starts_without_libtorch(self):
        """What takes a second to load; how long the command takes is `cpu_bench.py`'s question."""
        loaded = subprocess.run([BIN / "rein", "--help"], env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True,
                                check=True).stdout
        self.assertIn("libstdc++", loaded)
        self.assertNotRegex(loaded, "torch|cuda|nccl")

    def test_validate_has_the_data_opened_where_there_is_a_controller(self):
        (self.folder / "empty.jsonl").write_text("")
        text = self.rein("validate", "-f", "job.yaml", "data.train=empty.jsonl")
        self.assertIn("its data and tokenizer were not opened", text)
        self.up()
        self.assertNotIn("not opened", self.rein("validate", "-f", "job.yaml"))
        text = self.rein("validate", "-f", "job.yaml", "data.train=empty.jsonl", code=3)
        self.assertIn("empty.jsonl is empty: want one JSON object per line", text)
        self.assertEqual(self.rein("get", "jobs", "-o", "name"), "", "nothing was submitted")

    def test_a_job_without_a_reward_service_says_so(self):
        self.up(rollouts="1")
        self.rein("submit", "-f", "job.yaml")
        self.assertIn("waits for a reward service", self.wait_for_message("waits for a reward"))
        self.assertIn("waits for a reward service", self.rein("describe", "digits"))

    def test_tables_fit_the_terminal(self):
        """In a terminal the last column is cut; in a pipe nothing is."""
        ageless = lambda table: re.sub(r" +\d+s +", " ", table)  # time goes on between two looks
        self.up()
        self.rein("submit", "-f", "job.yaml", "placement.group=" + "a-group-whose-name-is-long-" * 2)
        whole = self.rein("get", "jobs")
        self.assertIn("no trainer of group a-group-whose-name-is-long-a-group-whose-name-is-long- is here\n", whole)
        for columns in (80, 200):
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            run = subprocess.run([BIN / "rein", "get", "jobs"], env=self.environment, cwd=self.folder, stdout=theirs, timeout=60)
            os.close(theirs)
            text = b""
            with contextlib.suppress(OSError):  # at its end, once nobody has the other side open
                while piece := os.read(ours, 1 << 16):
                    text += piece
            text = text.decode().replace("\r\n", "\n")
            os.close(ours)
            self.assertEqual(run.returncode, 0)
            self.assertEqual(ageless(text) == ageless(whole), columns == 200, text)
            self.assertLessEqual(max(map(len, text.splitlines())), columns)

    def test_validate_and_explain_need_no_server(self):
        self.assertIn("group_size: 8", self.rein("validate", "-f", "job.yaml"))
        self.assertIn("group_size: 4", self.rein("validate", "-f", "job.yaml", "grpo.group_size=4"))
        text = self.rein("validate", "-f", "job.yaml", "grpo.groupsize=4", "trainer.beta1=2", code=3)
        self.assertIn("error: job.yaml has 2 problems", text)
        self.assertIn("did you mean group_size?", text)
        self.assertIn("wants a number in [0, 1), got 2", text)
        self.assertIn("cannot read nothing.yaml", self.rein("validate", "-f", "nothing.yaml", code=4))
        for job in ("grpo_async_digits", "grpo_digits", "sft_digits"):
            data = [f"data.{part}.file={self.folder / 'train.jsonl'}" for part in ("train", "eval")]
            self.rein("validate", "-f", str(ROOT / f"configs/jobs/{job}.yaml"), *data)
        self.assertIn("when_stale  has no effect while staleness is 0", self.rein(
            "validate", "-f", str(ROOT / "configs/jobs/grpo_async_digits.yaml"), *data, "grpo.staleness=0", code=3))
        self.assertIn("default 0.2", self.rein("explain", "grpo.clip.high"))
        self.assertIn("did you mean grpo.clip.high?", self.rein("explain", "grpo.clip.hgih", code=4))

    def test_a_job_from_submit_to_cancel(self):
        self.assertIn("page http://127.0.0.1:", self.up())
        self.assertIn("up already", self.rein("up"))
        text = self.rein("submit", "-f", "job.yaml", "data.train=trian.jsonl", code=3)
        self.assertIn("job.yaml has 1 problem; nothing was submitted", text)
        self.assertIn("trian.jsonl does not exist; train.jsonl does", text)
        self.assertIn("group_size: 8", self.rein("submit", "-f", "job.yaml", "--dry-run"))
        self.assertIn("submitted digits", self.rein("submit", "-f", "job.yaml"))
        self.rein("submit", "-f", "job.yaml", code=5)
        self.assertEqual(self.rein("submit", "-f", "-", "--name", "second", "-o", "name", input=JOB), "second\n")
        self.assertEqual(self.rein("get", "jobs", "-o", "name"), "second\ndigits\n")
        self.assertIn("waits for a rollout service", self.rein("get", "jobs") + self.wait_for_message())
        self.assertEqual(json.loads(self.rein("get", "job", "digits", "-o", "json"))["kind"], "grpo")
        self.assertIn("name: digits", self.rein("describe", "digits", "-o", "yaml"))
        self.assertIn("in flight 0", self.rein("describe", "digits"))
        self.assertEqual(self.rein("get", "actors", "trainer-0", "-o", "name"), "trainer-0\n")
        self.assertIn("no actor trainer-7", self.rein("get", "actors", "trainer-7", code=4))
        self.assertIn("did you mean jobs?", self.rein("get", "jbos", code=2))
        self.assertIn("did you mean digits?", self.rein("describe", "digitz", code=4))
        self.rein("wait", "digits", "--timeout", "0.3", code=124)
        self.assertIn("PAUSED", self.rein("pause", "second"))
        self.assertIn("keeps seed", self.rein("resume", "second", "seed=4", code=3))
        self.assertIn("QUEUED", self.rein("resume", "second", "trainer.learning_rate=0.1"))
        self.assertIn("no rollouts", self.rein("rollouts", "digits"))
        self.assertIn("msg=registered", self.rein("logs", "trainer-0"))
        self.assertIn("digits  CANCELLED", self.rein("cancel", "digits"))
        self.assertIn("CANCELLED  digits", self.rein("wait", "digits", code=8))
        self.assertIn("CANCELLED", self.rein("watch", "digits", code=8))
        pids = self.pids()
        self.assertEqual(self.rein("down"), "down\n")
        self.assertFalse(any(map(alive, pids)))

    def wait_for_message(self, beginning="waits for a rollout"):
        for _ in range(200):
            message = json.loads(self.rein("get", "job", "digits", "-o", "json")).get("message", "")
            if message.startswith(beginning):
                break
            time.sleep(0.05)
        return message

    def test_the_logs_of_services_are_bounded(self):
        logs = self.folder / "home/logs"
        logs.mkdir(parents=True)
        (logs / "trainer-0.log").write_text("2026-01-01T00:00:00.000Z INFO role=trainer msg=old\n" * (1 << 15))
        self.up("--log-mib", "1")
        self.assertTrue((logs / "trainer-0.log.1").exists())
        self.assertLess((logs / "trainer-0.log").stat().st_size, 1 << 16)
        for _ in range(200):  # it is told that it is registered after the controller knows
            text = self.rein("logs", "trainer-0")
            if "msg=registered" in text:
                break
            time.sleep(0.05)
        self.assertIn("msg=old\n", text, "what is kept is read too")
        self.assertIn("msg=registered", text.splitlines()[-1])
        self.assertEqual(len(self.rein("logs", "trainer-0", "--tail", "5").splitlines()), 5)
        self.assertIn("--log-mib", self.rein("up", "--log-mib", "0", code=2))

    def test_a_server_tells_what_it_serves_only_where_it_was_asked_to(self):
        """By the standard protocol of grpcurl, here as bytes: list_services."""
        def services(*flags):
            controller = self.up(*flags).split("controller ")[1].split()[0]
            (self.folder / "request").write_bytes(b"\0" + (2).to_bytes(4, "big") + b"\x3a\0")
            run = subprocess.run(["curl", "-s", "--http2-prior-knowledge", "-H", "content-type: application/grpc",
                                  "-H", "te: trailers", "--data-binary", "@request", "--max-time", "10",
                                  f"http://{controller}/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"],
                                 cwd=self.folder, capture_output=True, timeout=20)
            self.rein("down")
            return run.stdout

        self.assertEqual(services(), b"")
        told = services("--reflection")
        self.assertIn(b"rein.v1.ControllerService", told)
        self.assertNotIn(b"rein.v1.TrainerService", told)

    def test_a_taken_port_is_told(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            text = self.up(listen=address, code=7)
        self.assertIn(f"cannot listen on {address}: the port is taken", text)

    def test_services_come_back_and_none_outlives_the_supervisor(self):
        self.up("--lease-seconds", "1")
        trainer = int((self.folder / "home/run/trainer-0.pid").read_text())
        os.kill(trainer, signal.SIGKILL)
        for _ in range(200):
            again = int((self.folder / "home/run/trainer-0.pid").read_text())
            if again != trainer and alive(again):
                break
            time.sleep(0.05)
        self.assertNotEqual(again, trainer)
        pids = self.pids()
        self.assertTrue(all(map(alive, pids)))
        os.kill(json.loads((self.folder / "home/context.json").read_text())["supervisor"], signal.SIGKILL)
        for _ in range(100):
            if not any(map(alive, pids)):
                break
            time.sleep(0.05)
        self.assertFalse(any(map(alive, pids)))


if __name__ == "__main__":
    unittest.main(argv=["command_line_test.py"])
