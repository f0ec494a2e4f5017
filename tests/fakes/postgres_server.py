#!/usr/bin/env python3
"""A real PostgreSQL server in a folder of its own, for tests.

    postgres_server.py        prints "SOCKET_URL TCP_URL PASSWORD_FILE", then obeys lines on standard input:
                              kill (as a crash would), start, sql SCHEMA STATEMENT; each is answered with a line.
                              The end of the input ends the server and removes the folder.

Sockets are trusted, 127.0.0.1 wants the password of the file. Prints "SKIP why" and leaves with 77 where no server is
installed.
"""
import glob
import os
import pathlib
import pwd
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from folders import temporary_folder  # noqa: E402
from ports import free_port  # noqa: E402

PASSWORD = "canary-of-postgres"


def programs():
    """The folder of initdb and postgres, or None."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which("initdb")
    return pathlib.Path(path).resolve().parent if path else None


class PostgresServer:
    """Started by the constructor; RuntimeError says why there is none."""

    def __init__(self):
        self.bin = programs()
        if self.bin is None:
            raise RuntimeError("no PostgreSQL server here (deploy/setup --postgres installs one): its tests are skipped")
        self.temporary = temporary_folder(prefix="rein-postgres-")
        self.folder = pathlib.Path(self.temporary.name)
        self.prefix = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = next((u for u in ("postgres", "nobody") if self.exists(u)), None)
            self.prefix = ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups"]
            os.chown(self.folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        self.password_file = self.folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o644)
        self.port = free_port()
        self.call("initdb", "-D", self.folder / "data", "-U", "rein", "--pwfile", self.password_file, "-E", "UTF8",
                  "--locale", "C", "--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync")
        self.start()
        self.url = f"postgres://rein@/postgres?host={self.folder}&port={self.port}"
        self.tcp_url = f"postgres://rein@127.0.0.1:{self.port}/postgres"

    @staticmethod
    def exists(user):
        try:
            return pwd.getpwnam(user) is not None
        except KeyError:
            return False

    def call(self, program, *arguments):
        run = subprocess.run([*self.prefix, self.bin / program, *arguments], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, cwd="/")
        if run.returncode != 0:
            raise RuntimeError(f"{program}: {run.stderr}")

    def start(self):
        self.call("pg_ctl", "start", "-w", "-D", self.folder / "data", "-l", self.folder / "log", "-o",
                  f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} "
                  "-c max_connections=40 -c shared_buffers=16MB")

    def use_tls(self, certificate, key):
        """Starts again with this certificate; TCP without TLS is refused from then on."""
        data = self.folder / "data"
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            shutil.copyfile(source, data / name)
            shutil.chown(data / name, data.owner(), data.group())
            (data / name).chmod(0o600)
        with open(data / "postgresql.conf", "a") as settings:
            settings.write("ssl = on\n")
        rules = (data / "pg_hba.conf").read_text()
        (data / "pg_hba.conf").write_text("".join("hostssl" + line[4:] if line.startswith("host ") else line for line in rules.splitlines(True)))
        self.stop()
        self.start()

    def stop(self, mode="fast"):
        self.call("pg_ctl", "stop", "-w", "-m", mode, "-D", self.folder / "data")

    def sql(self, statement, schema="public"):
        run = subprocess.run([self.bin / "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url],
                             capture_output=True, text=True, env=dict(os.environ, PGOPTIONS=f"-csearch_path={schema}"))
        if run.returncode != 0:
            raise RuntimeError(run.stderr)
        return run.stdout.strip()

    def close(self):
        try:
            self.stop("immediate")
        except RuntimeError:
            pass  # it is stopped
        self.temporary.cleanup()


def main():
    try:
        server = PostgresServer()
    except RuntimeError as why:
        print("SKIP", str(why).replace("\n", " "), flush=True)
        sys.exit(77)
    print(server.url, server.tcp_url, server.password_file, flush=True)
    try:
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            answer = ""
            if command == "sql":
                schema, _, statement = rest.partition(" ")
                try:
                    answer = server.sql(statement, schema)
                except RuntimeError as error:
                    answer = str(error)
            elif command == "start":
                server.start()
            else:
                server.stop("immediate")
            print(answer.replace("\n", ";"), flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
