"""What every service of this package shares: a gRPC server around one servicer."""
from __future__ import annotations

import json
import os
import pathlib
from concurrent import futures
from typing import Any, Callable

import grpc

GRPC_OPTIONS = [("grpc.max_receive_message_length", 256 << 20), ("grpc.max_send_message_length", 256 << 20)]
# A controller that others use too refuses a user's calls beyond a rate: later they are welcome.
_LATER = {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 3, "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}
CLIENT_OPTIONS = [*GRPC_OPTIONS, ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _LATER}]}))]


def read(path: str | os.PathLike[str]) -> bytes:
    return pathlib.Path(path).read_bytes()


class Service:
    """Serves itself. A subclass names the function that adds it to a server, and how many calls it takes at a time."""

    _add: Callable[[Any, grpc.Server], None]
    _threads = 8
    _server: grpc.Server | None = None

    def start(self, address: str, tls: str | None = None, threads: int | None = None) -> int:
        """Serves from here on, in threads; the port that was taken. `tls`: a folder, where other machines call."""
        self._server = grpc.server(futures.ThreadPoolExecutor(threads or self._threads), options=GRPC_OPTIONS)
        type(self)._add(self, self._server)
        if tls:
            creds = grpc.ssl_server_credentials([(read(f"{tls}/tls.key"), read(f"{tls}/tls.crt"))], read(f"{tls}/ca.crt"), True)
            port = self._server.add_secure_port(address, creds)
        else:
            port = self._server.add_insecure_port(address)
        self._server.start()
        return port

    def stop(self) -> None:
        self._server.stop(1).wait()

    def wait(self) -> None:
        self._server.wait_for_termination()

    def serve(self, address: str, tls: str | None = None, threads: int | None = None) -> None:
        self.start(address, tls, threads)
        self.wait()
