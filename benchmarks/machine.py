"""Description of the machine that figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("grpcio", "onnxruntime", "faiss-cpu", "pylance", "numpy")


def description() -> str:
    """Return the machine and the versions, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    size = f"{os.cpu_count()} cores, {_memory_gib():.0f} GiB"
    return f"{_processor()}, {size}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
