"""Ports of 127.0.0.1 for servers that tests start."""
import socket
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
