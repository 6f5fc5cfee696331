"""Loading of models, tokenizers and image processors by transformers, offline and without remote code."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from services.embedder.core.preprocessing import Interpolation, Preprocessing, Resize
from services.embedder.export.errors import ExportError, first_line
from services.embedder.export.sources import Source

INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 5: "hamming"}
"""Our names of Pillow's filters, by the numbers used in preprocessor_config.json."""

LOCAL = {"local_files_only": True, "trust_remote_code": False}
WHITE = (255, 255, 255)

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
logging.getLogger("transformers").propagate = False


def model(kind: Any, source: Source, *, unused: Sequence[str] = (), **options: Any) -> nn.Module:
    """Return the model of `source` in float32; all weights must be present, except those of `unused` parts.

    Raises:
        ExportError: the weights are missing, damaged, or of another model.
    """
    try:
        loaded, report = kind.from_pretrained(
            source.folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            **LOCAL,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch have no common error class
        raise ExportError(f"cannot load {source.given}: {first_line(error)}") from error
    missing = [name for name in report["missing_keys"] if not name.startswith(tuple(unused) or ("\0",))]
    if missing or report["mismatched_keys"]:
        lacking = ", ".join(sorted(missing)[:5]) or "weights of the right shapes"
        raise ExportError(f"{source.given} lacks {lacking}: its weights are not those of its config.json")
    return loaded.eval()


def load_tokenizers(source: Source) -> tuple[Tokenizer, Any]:
    """Return the tokenizer of `source` twice: without padding and truncation, and as transformers uses it.

    If transformers has only a slow one, the published tokenizer.json is used: slow tokenizers differ from it in
    details, such as a token for a leading space.

    Raises:
        ExportError: there is none that works without remote code.
    """
    try:
        original = transformers.AutoTokenizer.from_pretrained(source.folder, **LOCAL)
    except Exception as error:  # as in `model`
        original = _load_fast_tokenizer(source, error)
    if getattr(original, "backend_tokenizer", None) is None:
        original = _load_fast_tokenizer(source, None)
    ours = Tokenizer.from_str(original.backend_tokenizer.to_str())
    ours.no_padding()
    ours.no_truncation()
    return ours, original


def _load_fast_tokenizer(source: Source, error: Exception | None) -> Any:
    """Load the source's tokenizer.json."""
    if not (source.folder / "tokenizer.json").is_file():
        reason = f": {first_line(error)}" if error else ", and its tokenizer cannot be made into one"
        raise ExportError(f"{source.given} has no tokenizer.json{reason}") from error
    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(source.folder, **LOCAL)
    except Exception as worse:  # as in `model`
        raise ExportError(f"cannot load the tokenizer of {source.given}: {first_line(worse)}") from worse


def reference_inputs(
    original: Any, inputs: Sequence[str], **options: Any
) -> Callable[[Sequence[str]], tuple[Tensor, ...]]:
    """Return a function that tokenizes texts to `inputs` with `original` and `options`."""

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, ...]:
        found = original(list(texts), truncation=True, return_attention_mask=True, return_tensors="pt", **options)
        return tuple(found[name] for name in inputs)

    return tokenize


def read_list(path: Path) -> list[dict[str, Any]]:
    """Return the list of objects in the JSON file at `path`.

    Raises:
        ExportError: it is not such a list.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ExportError(f"{path} is not a list of objects")
    return found


def pictures(source: Source, size: int) -> tuple[Preprocessing, Any]:
    """Return the preprocessing of pictures to `size` by `size` pixels, and the original's image processor.

    Raises:
        ExportError: the original's preprocessing is not supported.
    """
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(source.folder, backend="pil", **LOCAL)
    except Exception as error:  # as in `model`
        raise ExportError(f"cannot load the image processor of {source.given}: {first_line(error)}") from error
    return preprocessing(processor.to_dict(), size), processor


def preprocessing(steps: dict[str, Any], size: int) -> Preprocessing:
    """Convert `steps`, the configuration of an image processor.

    Raises:
        ExportError: they are not supported.
    """
    if not steps.get("do_resize", True) or not steps.get("do_rescale", True):
        raise _unsupported("does not scale pictures or their values")
    if abs(steps.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6 or steps.get("rescale_offset"):
        raise _unsupported("scales values by another factor than 1/255")
    interpolation = INTERPOLATIONS.get(int(steps["resample"]))
    if interpolation is None:
        raise _unsupported(f"scales by resample {steps['resample']}")
    normal = steps.get("do_normalize", True)
    mean = tuple(float(value) for value in steps["image_mean"]) if normal else (0.0, 0.0, 0.0)
    std = tuple(float(value) for value in steps["image_std"]) if normal else (1.0, 1.0, 1.0)
    if len(mean) != 3 or len(std) != 3:
        raise _unsupported("has other channels than red, green and blue")
    return Preprocessing(size, WHITE, interpolation, mean, std, _resize(steps, size))


def _resize(steps: dict[str, Any], size: int) -> Resize:
    wanted, crop = dict(steps["size"]), steps.get("crop_size") if steps.get("do_center_crop") else None
    square = {"height": size, "width": size}
    if crop is not None and dict(crop) != square:
        raise _unsupported(f"crops to {dict(crop)}, and the model takes {size} by {size}")
    if wanted == {"shortest_edge": size} and crop is not None:
        return "crop"
    if wanted == square:
        return "squash"
    raise _unsupported(f"scales to {wanted}{' and crops' if crop else ''}, and the model takes {size} by {size}")


def _unsupported(problem: str) -> ExportError:
    return ExportError(
        f"its image processor {problem}; supported are scaling the shorter side to the model's size and cropping the "
        "centre, and scaling both sides"
    )
