"""`python -m services`: run all four services in this process until SIGTERM."""

from services.common.process import run_process
from services.common.rpc.server import wait_for_signal
from services.settings import SuiteSettings
from services.wiring import suite


async def main(settings: SuiteSettings) -> None:
    """Serve until SIGTERM or SIGINT; print the addresses, then `ready`."""
    async with suite(settings) as addresses:
        for name, address in addresses.items():
            print(f"{name:<8} {address}")
        print("ready", flush=True)
        await wait_for_signal()


if __name__ == "__main__":
    run_process("medley", lambda: main(SuiteSettings()))
