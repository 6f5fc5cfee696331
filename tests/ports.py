"""Ports for servers that tests start, each given once, whichever processes run tests at the same time."""

import itertools
import os
import socket

# Below those that Linux gives to clients: a client's port would be taken when the server binds it.
_PORTS = range(20_000, 32_000)
_reserved: list[socket.socket] = []


def reserve_port() -> int:
    """Return a port on which nothing listens, and which no other call returns while this process lives."""
    return reserve_ports(1)


def reserve_ports(count: int) -> int:
    """Return the first of `count` consecutive ports, reserved as by `reserve_port`."""
    offset = os.getpid() * 16  # two processes rarely look at the same ports
    for number in itertools.islice(itertools.count(offset), len(_PORTS)):
        first = _PORTS[number % len(_PORTS)]
        if first + count <= _PORTS.stop and _reserve(range(first, first + count)):
            return first
    raise AssertionError(f"no {count} consecutive ports are free")


def _reserve(ports: range) -> bool:
    """Hold the UDP ports of the same numbers, which no server here uses: the system takes them back at our end."""
    held: list[socket.socket] = []
    for port in ports:
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held.append(lock)
        if not (_binds(lock, port) and _listenable(port)):
            for each in held:
                each.close()
            return False
    _reserved.extend(held)
    return True


def _listenable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _binds(probe, port)


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
