"""Texts per second: Triton called directly, through the embedder service, and the embedder without Triton.

`python -m benchmarks.triton` starts its own Triton server and embedders (`make triton-server` first). All run the same
int8 model on the same machine, whose cores server, service and callers share; each text is new, so no cache answers.
The callers are in this process; each waits for its answer before the next request.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path

import grpc
from tritonclient.grpc.aio import InferenceServerClient

from benchmarks.machine import description
from benchmarks.timing import Latency
from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.triton.inputs import TextInputBuilder
from services.embedder.core.catalog import TextTower
from services.embedder.settings import BUILT_IN_MODELS
from tools.triton import Ports, TritonServer, serve_models

CALLERS = (1, 8, 32)
Ask = Callable[[str], Awaitable[object]]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    parser.add_argument("--rounds", type=int, default=2, help="of all figures; the best of each is shown")
    parser.add_argument("--instances", type=int, default=os.cpu_count() or 1, help="copies of the model in Triton")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        serve_models(BUILT_IN_MODELS, Path(scratch) / "repository", instances=arguments.instances) as server,
        _embedder("triton", EMBEDDER_TRITON_ENDPOINTS=server.endpoint) as through,
        _embedder("onnx") as here,
    ):
        asyncio.run(_measure(server, through, here, arguments.seconds, arguments.rounds))


async def _measure(server: TritonServer, through: str, here: str, seconds: float, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        client = InferenceServerClient(server.endpoint)
        stack.push_async_callback(client.close)
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(each)) for each in (through, here)]
        service, process = (pb_grpc.EmbedderServiceStub(channel) for channel in channels)
        ways: dict[str, Ask] = {
            "tritonclient": _raw(client),
            "embedder over Triton": _embed(service),
            "embedder in process": _embed(process),
        }
        best: dict[tuple[str, int], tuple[float, Latency]] = {}
        for _ in range(rounds):
            for callers in CALLERS:
                for name, ask in ways.items():
                    figure = await _throughput(ask, callers, seconds)
                    best[name, callers] = max(best.get((name, callers), figure), figure, key=lambda each: each[0])
    _show(list(ways), best)


def _show(ways: list[str], best: dict[tuple[str, int], tuple[float, Latency]]) -> None:
    print(description())
    print(f"{'':<22}" + "".join(f"{f'{callers} callers':>30}" for callers in CALLERS))
    for name in ways:
        cells = (best[name, callers] for callers in CALLERS)
        shown = (f"{rate:5.0f}/s p50 {each.p50:5.1f} p95 {each.p95:5.1f} ms" for rate, each in cells)
        print(f"{name:<22}" + "".join(f"{cell:>30}" for cell in shown))
    for callers in CALLERS:
        print(f"{callers} callers: {best[ways[1], callers][0] / best[ways[0], callers][0]:.2f} of tritonclient")


_numbers = count()


async def _throughput(ask: Ask, callers: int, seconds: float) -> tuple[float, Latency]:
    taken: list[float] = []

    async def caller() -> None:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            await ask(f"product number {next(_numbers)} in red cotton for women")
            taken.append(time.perf_counter() - began)

    await ask("warm")
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(taken) / (time.perf_counter() - began), Latency.of(taken)


def _raw(client: InferenceServerClient) -> Ask:
    (tower,) = (model.text for model in read_models(BUILT_IN_MODELS) if isinstance(model.text, TextTower))
    builder = TextInputBuilder(tower)

    async def ask(text: str) -> object:
        answer = await client.infer("minilm.text", await builder.build([text], {"text": ("BYTES", (1,))}))
        return answer.as_numpy("vector")

    return ask


def _embed(stub: "pb_grpc.EmbedderServiceAsyncStub") -> Ask:
    async def ask(text: str) -> object:
        return await stub.Embed(pb.EmbedRequest(model="minilm", inputs=[pb.EmbedInput(text=text)]))

    return ask


@contextmanager
def _embedder(runtime: str, **environment: str) -> Iterator[str]:
    """Run an embedder of its own process; yield its address once it answers."""
    address = f"127.0.0.1:{Ports.free().grpc}"
    wanted = {"EMBEDDER_RUNTIME": runtime, "EMBEDDER_LISTEN": address, **environment}
    process = subprocess.Popen([sys.executable, "-m", "services.embedder"], env={**os.environ, **wanted})
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(60)
        yield address
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
