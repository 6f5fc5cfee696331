"""`python -m services.embedder.triton_repository OUT`: write a Triton model repository."""

import argparse
import os
import sys
from pathlib import Path

from services.embedder.core.errors import ModelFileError
from services.embedder.settings import BUILT_IN, BUILT_IN_MODELS
from services.embedder.triton_repository import write_repository


def main() -> None:
    """Write the repository that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m services.embedder.triton_repository", description=__doc__)
    parser.add_argument("out", type=Path, help="the repository; other models in it are kept")
    parser.add_argument(
        "--models-dir",
        action="append",
        help=f"folder with a folder for each model, or {BUILT_IN!r}, the default; may be given several times",
    )
    parser.add_argument("--flavour", choices=("python", "onnxruntime", "tensorrt"), default="python")
    parser.add_argument(
        "--instances", type=int, default=os.cpu_count() or 1, help="instances of each model (%(default)s)"
    )
    parser.add_argument("--max-batch", type=int, default=32, help="maximum rows in a batch (%(default)s)")
    parser.add_argument("--max-queue", type=int, default=256, help="maximum requests in the queue (%(default)s)")
    given = parser.parse_args()
    folders = [BUILT_IN_MODELS if name == BUILT_IN else Path(name) for name in given.models_dir or [BUILT_IN]]
    limits = {"instances": given.instances, "max_batch": given.max_batch, "max_queue": given.max_queue}
    try:
        names = write_repository(folders, given.out, flavour=given.flavour, **limits)
    except (ModelFileError, OSError) as error:
        sys.exit(str(error))
    print("\n".join(names))


if __name__ == "__main__":
    main()
