"""Ports of 127.0.0.1 for servers that tests start."""
import pathlib
import random
import socket
import time

EPHEMERAL = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def free_port():
    """Below those that the kernel gives to connections and to servers that name none: nobody takes it until it is used."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(10000, max(EPHEMERAL, 20000))))
                return probe.getsockname()[1]
            except OSError:
                pass  # taken


def wait_for_listener(port, process, seconds=60):
    """Until `process` listens there."""
    deadline = time.time() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
            assert time.time() < deadline, f"{process.args[0]} does not listen on port {port}"
            time.sleep(0.05)
