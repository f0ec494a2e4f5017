#!/usr/bin/env python3
"""A controller keeps its store on a real PostgreSQL server over TLS, and takes no other server for it.

    postgres_tls_test.py BIN_FOLDER
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
from postgres_server import PostgresServer  # noqa: E402


def authority(folder, name, host):
    """An authority and a certificate of it for a server at `host`."""
    openssl = lambda *arguments: subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", folder / f"{name}-ca.key", "-out", folder / f"{name}-ca.crt")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", folder / f"{name}.key",
            "-out", folder / f"{name}.csr")
    (folder / "names").write_text(f"subjectAltName=DNS:{host}\n")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{name}-ca.crt", "-CAkey", folder / f"{name}-ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", folder / "names", "-out", folder / f"{name}.crt")
    return folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}-ca.crt"


class PostgresTlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        certificate, key, cls.ca = authority(cls.folder, "right", "localhost")
        cls.other_ca = authority(cls.folder, "other", "localhost")[2]
        cls.server.use_tls(certificate, key)

    def controller(self, name, host, ca, mode="verify-full"):
        """A controller's process, with its log."""
        folder = self.folder / name
        folder.mkdir()
        store = f"postgres://rein@{host}:{self.server.port}/postgres?sslmode={mode}&sslrootcert={ca}"
        process = subprocess.Popen([BIN / "rein-controller", "--store", store, "--store-password-file", self.server.password_file, "--state", folder / "state",
                                    "--address-file", folder / "address", "--log-file", folder / "log"],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process, folder

    def refused(self, *arguments):
        process, folder = self.controller(*arguments)
        self.assertNotEqual(process.wait(60), 0)
        log = folder / "log"
        return process.stdout.read() + (log.read_text() if log.exists() else "")

    def test_jobs_lie_there_and_the_line_is_encrypted(self):
        process, folder = self.controller("good", "localhost", self.ca)
        deadline = time.monotonic() + 30
        while not ((folder / "address").exists() and (folder / "address").read_text().strip()):
            self.assertIsNone(process.poll(), (folder / "log").read_text() if (folder / "log").exists() else "")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        lines = self.server.sql("SELECT application_name, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'rein%' AND ssl").split("\n")
        self.assertTrue([line for line in lines if line.startswith("rein-leader-") and "|TLSv1." in line], lines)
        self.assertEqual(self.server.sql("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'rein%' AND NOT ssl"), "0")
        home = dict(os.environ, REIN_HOME=str(folder / "home"), REIN_SERVER=(folder / "address").read_text().split()[0])
        self.assertEqual(subprocess.run([BIN / "rein", "get", "jobs"], env=home, capture_output=True, timeout=30).returncode, 0)
        process.terminate()
        self.assertEqual(process.wait(30), 0)

    def test_a_server_of_another_authority_is_not_taken(self):
        text = self.refused("stranger", "localhost", self.other_ca)
        self.assertIn("certificate verify failed", text)

    def test_a_server_of_another_name_is_not_taken(self):
        text = self.refused("misnamed", "127.0.0.1", self.ca)
        self.assertRegex(text, r'server certificate for \\?"localhost\\?".* does not match host name \\?"127\.0\.0\.1')

    def test_an_authority_that_is_not_there_is_named(self):
        self.assertIn("missing.crt", self.refused("missing", "localhost", self.folder / "missing.crt"))


if __name__ == "__main__":
    try:
        PostgresTlsTest.server = PostgresServer()
    except RuntimeError as why:
        print(f"SKIPPED: the store was NOT tried over TLS: {why}")
        sys.exit(77)
    try:
        unittest.main()
    finally:
        PostgresTlsTest.server.close()
