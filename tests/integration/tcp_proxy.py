"""A proxy before any TCP server, in threads of its own, that passes on, holds back or cuts as it is told."""

import math
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE_BYTES = 2**14


class Valve:
    """One direction of a proxy: everything passes, until it is told to stop."""

    def __init__(self) -> None:
        self._left = math.inf
        self._changed = threading.Condition()

    def stop_after(self, count: int) -> None:
        """Let about `count` bytes more pass: at most a piece too many."""
        with self._changed:
            self._left = count

    def open(self) -> None:
        """Let everything pass, what was held back first."""
        with self._changed:
            self._left = math.inf
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Wait until `count` bytes may pass."""
        with self._changed:
            self._changed.wait_for(lambda: self._left > 0)
            self._left -= count


class TcpProxy:
    """Passes everything on as far as its valves let it, until `cut_after` so many bytes have gone to the client."""

    def __init__(self, port: int) -> None:
        self.cut_after: int | None = None
        self.cuts = 0
        self.to_server, self.to_client = Valve(), Valve()
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def uri(self) -> str:
        """Where clients connect that want a URI."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pass_on()
        self._listener.close()
        self.cut()

    def hold(self) -> None:
        """Pass nothing on, in either direction, connections staying open."""
        self.to_server.stop_after(0)
        self.to_client.stop_after(0)

    def pass_on(self) -> None:
        """Pass on again, what was held back first."""
        self.to_server.open()
        self.to_client.open()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets = []

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, to_client: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                (self.to_client if to_client else self.to_server).wait(len(piece))
                if to_client and self.cut_after is not None:
                    self.cut_after -= len(piece)
                    if self.cut_after < 0:
                        self.cut_after = None
                        self.cuts += 1
                        break
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
