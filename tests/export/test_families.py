"""Every family: built from a folder, loaded by the embedder, and held against transformers' own vectors."""

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("transformers", reason="needs the extra export")

import onnxruntime
import torch
import transformers

from medley.v1 import embedder_service_pb2 as pb
from services.common.vectors import Matrix
from services.embedder.export import golden
from services.embedder.export.building import BuildOptions, build
from services.embedder.export.console import Console
from services.embedder.export.parity import MIN_COSINE
from services.embedder.export.precision import Precision
from services.embedder.settings import EmbedderSettings
from services.embedder.wiring import embedder_servicer
from tests.export import tiny

QUIET = Console(quiet=True)
TEXTS = list(golden.TEXTS.values())
PICTURES = golden.pictures()

Original = Callable[[Path], Matrix]


def built(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Build the model of `folder`; return what it says of itself and where it comes from."""
    (place,) = build([str(folder)], BuildOptions(out, **options), QUIET)
    return {name: json.loads((place / f"{name}.json").read_text()) for name in ("model", "provenance")}


async def embedded(out: Path, *contents: str | bytes, purpose: Any = 0) -> Matrix:
    """Embed `contents` with the only model in `out`, by the whole embedder."""
    inputs = [pb.EmbedInput(text=each) if isinstance(each, str) else pb.EmbedInput(image=each) for each in contents]
    settings = EmbedderSettings(models_dir=(out,), threads=1)
    async with embedder_servicer(settings) as servicer:
        direct: Any = servicer  # called without a wire, and so without a context
        (model,) = (await direct.ListModels(pb.ListModelsRequest(), None)).models
        answer = await direct.Embed(pb.EmbedRequest(model=model.name, inputs=inputs, purpose=purpose), None)
    assert not any(result.HasField("error") for result in answer.results), answer
    return np.stack([np.frombuffer(result.embedding.vector.float32_le, "<f4") for result in answer.results])


def least_cosine(ours: Matrix, theirs: Matrix) -> float:
    assert ours.shape == theirs.shape
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (theirs @ theirs.T).min() < 0.95, "vectors must differ to be worth comparing"
    return float((ours * theirs).sum(axis=1).min())


def unit(vectors: torch.Tensor) -> Matrix:
    found: Matrix = torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()
    return found


def pooled(output: Any) -> torch.Tensor:
    return output if torch.is_tensor(output) else output.pooler_output


def shown(files: Mapping[str, bytes]) -> list[Image.Image]:
    """The pictures as people see them, which is what users of transformers give it: upright, on white, in colours."""
    upright = [ImageOps.exif_transpose(Image.open(BytesIO(file))).convert("RGBA") for file in files.values()]
    return [Image.alpha_composite(Image.new("RGBA", each.size, "white"), each).convert("RGB") for each in upright]


def texts_of_two_towers(kind: Any, **padding: Any) -> Original:
    def original(folder: Path) -> Matrix:
        fast = transformers.PreTrainedTokenizerFast if kind is transformers.SiglipModel else transformers.AutoTokenizer
        model, tokenizer = kind.from_pretrained(folder).eval(), fast.from_pretrained(folder)
        tokens = tokenizer(TEXTS, truncation=True, return_tensors="pt", **padding)
        if kind is transformers.SiglipModel:
            tokens = {"input_ids": tokens["input_ids"]}
        return unit(pooled(model.get_text_features(**tokens)))

    return original


def pictures_of_two_towers(kind: Any) -> Original:
    def original(folder: Path) -> Matrix:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        pixels = processor(images=shown(PICTURES), return_tensors="pt")
        return unit(pooled(kind.from_pretrained(folder).eval().get_image_features(**pixels)))

    return original


def sentences(folder: Path, pooling: str = "mean", **options: Any) -> Matrix:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [options.get("prefix", "") + text for text in TEXTS]
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    states, mask = model(**inputs).last_hidden_state, tokens["attention_mask"][..., None]
    match pooling:
        case "mean":
            return unit((states * mask).sum(1) / mask.sum(1))
        case "cls":
            return unit(states[:, 0])
        case _:
            return unit(states.masked_fill(mask == 0, -torch.inf).amax(1))


def vit(folder: Path) -> Matrix:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=shown(PICTURES), return_tensors="pt")
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    return unit(model.vit(**pixels).last_hidden_state[:, 0])


CLIP_TEXTS = texts_of_two_towers(transformers.CLIPModel, padding="max_length", max_length=77)
SIGLIP_TEXTS = texts_of_two_towers(transformers.SiglipModel, padding="max_length", max_length=64)
CLIP_PICTURES = pictures_of_two_towers(transformers.CLIPModel)
SIGLIP_PICTURES = pictures_of_two_towers(transformers.SiglipModel)

FAMILIES: Mapping[str, tuple[Callable[[Path], None], Original | None, Original | None]] = {
    "clip": (tiny.clip, CLIP_TEXTS, CLIP_PICTURES),
    "open_clip": (tiny.open_clip, CLIP_TEXTS, CLIP_PICTURES),
    "siglip": (tiny.siglip, SIGLIP_TEXTS, SIGLIP_PICTURES),
    "siglip_pieces": (tiny.siglip_pieces, SIGLIP_TEXTS, SIGLIP_PICTURES),
    "siglip2": (tiny.siglip2, SIGLIP_TEXTS, SIGLIP_PICTURES),
    "vit": (tiny.vit, None, vit),
    "clap": (tiny.clap, texts_of_two_towers(transformers.ClapModel, padding=True, max_length=64), None),
    **{kind: (partial(tiny.sentences, kind=kind), sentences, None) for kind in tiny.TEXT_MODELS},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    folder.mkdir()
    FAMILIES[request.param][0](folder)
    return request.param, folder


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
async def test_the_embedder_gives_the_originals_vectors(
    family: tuple[str, Path], precision: Precision, tmp_path: Path
) -> None:
    kind, folder = family
    _, texts, pictures = FAMILIES[kind]
    said = await in_thread(built, folder, tmp_path, precision=precision)
    if texts is not None:
        assert least_cosine(await embedded(tmp_path, *TEXTS), texts(folder)) >= MIN_COSINE[precision]
    if pictures is not None:
        theirs = pictures(folder)
        # Against transformers' own pixels: JPEG files decoded small are what differs.
        assert least_cosine(await embedded(tmp_path, *PICTURES.values()), theirs) >= min(0.999, MIN_COSINE[precision])
    for tower, parity in said["provenance"]["golden"].items():
        least = 0.999 if tower == "pixels" else MIN_COSINE[precision]
        assert least <= parity["least"] <= parity["mean"] <= 1.00001
        assert parity["inputs"] == {"text": len(TEXTS), "audio": 5}.get(tower, len(PICTURES))


async def in_thread(work: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """Building runs a loop of its own, so it is done in another thread than this test's."""
    return await asyncio.to_thread(lambda: work(*arguments, **options))


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit"])
async def test_an_int8_pictures_vector_does_not_depend_on_those_beside_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / kind).mkdir()
    FAMILIES[kind][0](tmp_path / kind)
    said = await in_thread(built, tmp_path / kind, tmp_path / "out", precision="int8")
    assert said["model"]["image"]["batch_sensitive"]
    together = await embedded(tmp_path / "out", *PICTURES.values())
    for place, file in enumerate(PICTURES.values()):
        assert np.array_equal((await embedded(tmp_path / "out", file))[0], together[place])


@pytest.mark.parametrize("pooling", ["cls_token", "max_tokens"])
async def test_pooling_is_read_from_the_folder(pooling: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    tiny.sentences(tmp_path / "m", pooling=pooling)
    await in_thread(built, tmp_path / "m", tmp_path / "out")
    theirs = sentences(tmp_path / "m", pooling.split("_", maxsplit=1)[0])
    assert least_cosine(await embedded(tmp_path / "out", *TEXTS), theirs) >= MIN_COSINE["fp32"]


async def test_queries_and_documents_get_their_prefixes(tmp_path: Path) -> None:
    folder = tmp_path / "e5-small-v2"
    folder.mkdir()
    tiny.sentences(folder)
    said = await in_thread(built, folder, tmp_path / "out")
    assert said["model"]["text"]["prefixes"] == {"query": "query: ", "document": "passage: "}
    for purpose, prefix in ((pb.EMBED_PURPOSE_QUERY, "query: "), (pb.EMBED_PURPOSE_DOCUMENT, "passage: "), (0, "")):
        ours = await embedded(tmp_path / "out", *TEXTS, purpose=purpose)
        assert least_cosine(ours, sentences(folder, prefix=prefix)) >= MIN_COSINE["fp32"]


async def test_a_tokenizer_to_be_lower_cased_is(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    tiny.sentences(folder, kind="roberta")
    tiny.change(folder / "sentence_bert_config.json", do_lower_case=True)
    await in_thread(built, folder, tmp_path / "out")
    small, capital = await embedded(tmp_path / "out", "red shoe", "RED Shoe")
    assert np.array_equal(small, capital)


def test_an_audio_tower_is_kept_with_what_its_input_is_made_by(tmp_path: Path) -> None:
    folder = tmp_path / "clap"
    folder.mkdir()
    tiny.clap(folder)
    said = built(folder, tmp_path / "out")
    assert said["model"]["audio"]["features"]["sampling_rate"] == 16_000
    assert "decodes no audio" in said["provenance"]["notes"][0]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "clap" / "audio.onnx"))
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    sounds = list(golden.sounds(16_000).values())
    features = extractor(sounds, sampling_rate=16_000, return_tensors="pt")["input_features"]
    theirs = unit(pooled(transformers.ClapModel.from_pretrained(folder).eval().get_audio_features(features)))
    (ours,) = session.run(["vector"], {"features": features.numpy()})
    assert float((ours * theirs).sum(axis=1).min()) > MIN_COSINE["fp32"]


def test_a_fused_audio_tower_is_left_out_and_said_so(tmp_path: Path) -> None:
    folder = tmp_path / "clap"
    folder.mkdir()
    tiny.clap(folder, fused=True)
    said = built(folder, tmp_path / "out")
    assert "audio" not in said["model"]
    assert "left out" in said["provenance"]["notes"][0]
