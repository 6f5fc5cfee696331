"""`python -m services.embedder.export build|list`: what `medley models` runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from services.common.errors import ServiceError
from services.embedder.export.building import BuildOptions, build
from services.embedder.export.console import Console
from services.embedder.export.errors import ExportError
from services.embedder.export.listing import format_table

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments`; return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(quiet=getattr(options, "quiet", False))
    try:
        return _build(options, console) if options.command == "build" else _list(options)
    except (ExportError, ServiceError, OSError) as error:
        console.print_error(str(error))
    except KeyboardInterrupt:
        console.print_error("interrupted; no partial model is left")
        return INTERRUPTED
    return 1


def _build(options: argparse.Namespace, console: Console) -> int:
    models = options.out / "models" if options.target == "triton" else options.out
    build_options = BuildOptions(
        out=models,
        name=options.name,
        precision=options.precision,
        revision=options.revision,
        min_cosine=options.min_cosine,
        query_prefix=options.query_prefix,
        document_prefix=options.document_prefix,
        pooling=options.pooling,
        replace=options.replace,
    )
    for folder in build(options.source, build_options, console):
        print(folder)
    if options.target == "triton":
        _write_repository(models, options.out / "repository", options, console)
    else:
        console.print_line(f"to serve them: EMBEDDER_MODELS_DIR=built-in{os.pathsep}{models.resolve()}")
    return 0


def _write_repository(models: Path, repository: Path, options: argparse.Namespace, console: Console) -> None:
    from services.embedder.triton_repository import write_repository

    for name in write_repository(models, repository, flavour=options.flavour):
        print(repository / name)
    console.print_line(f"to serve them: tritonserver --model-repository {repository.resolve()}")


def _list(options: argparse.Namespace) -> int:
    print(format_table(options.folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medley models", description="Models that the embedder can serve.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser(
        "build",
        help="build models",
        description=(
            "Build models for the embedder: CLIP and OpenCLIP, SigLIP and SigLIP 2, ViT, CLAP, sentence-transformers. "
            "Each is compared with the original on golden inputs, and refused if it differs too much."
        ),
    )
    building.add_argument("source", nargs="+", help="a built-in model, a hub id (owner/name), or a folder")
    building.add_argument("--target", choices=["onnx", "triton"], required=True, help="the runtime")
    building.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the models")
    building.add_argument("--name", help="name of the model; by default derived from its source")
    building.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="of the weights; fp32 by default")
    building.add_argument(
        "--min-cosine", type=_cosine, help="minimum cosine to the original; 0.9999, 0.999 or 0.98 by default"
    )
    building.add_argument("--revision", help="branch, tag or commit of a hub repository")
    building.add_argument("--query-prefix", help="prefix of queries, for text models")
    building.add_argument("--document-prefix", help="prefix of documents, for text models")
    building.add_argument(
        "--pooling", choices=["mean", "cls", "max"], help="for text models whose files do not state it"
    )
    building.add_argument(
        "--flavour", choices=["python", "onnxruntime", "tensorrt"], default="python", help="of the Triton repository"
    )
    building.add_argument("--replace", action="store_true", help="replace a model of the same name")
    building.add_argument("--quiet", action="store_true", help="print only errors and results")
    listed = commands.add_parser("list", help="list models", description="List the models in folders.")
    listed.add_argument("folder", nargs="*", type=Path, help="folders of models; by default EMBEDDER_MODELS_DIR's")
    return parser


def _cosine(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not over 0 and at most 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
