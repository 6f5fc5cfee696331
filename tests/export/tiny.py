"""Small models of random weights, one of each family, written into folders as their authors publish them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from services.embedder.export.golden import TEXTS

SIZE = 32
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {"initializer_range": 0.3}  # so that one input's vector is unlike another's
PICTURE = {**SHAPE, "image_size": SIZE, "patch_size": 8}


def letters() -> list[str]:
    """Every letter of the golden texts, and of the prefixes that tests use."""
    return sorted(
        {letter for text in TEXTS.values() for letter in text.lower() if not letter.isspace()} | set("querypasg:")
    )


def byte_vocabulary(specials: list[str], *, ends: bool = False) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary with a few merges."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols if ends)]
    merges = [("r", "e"), ("o", "o"), ("re", "d</w>")] if ends else [("r", "e"), ("o", "o")]
    words += ["".join(pair) for pair in merges]
    order = [*words, *specials] if ends else [*specials, *words]
    return {word: number for number, word in enumerate(order)}, merges


def word_pieces(specials: list[str]) -> dict[str, int]:
    known = letters()
    words = [*specials, *known, *(f"##{letter}" for letter in known), "shoe", "red", "photo", "##s", "##ing"]
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


def save_model(model: Any, folder: Path, architecture: str | None = None) -> None:
    model.save_pretrained(folder)
    if architecture:
        change(folder / "config.json", architectures=[architecture])


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def clip_processor(folder: Path) -> None:
    """As the first CLIP models say it, with sizes as plain numbers."""
    steps = {
        "do_resize": True,
        "size": SIZE,
        "do_center_crop": True,
        "crop_size": SIZE,
        "do_normalize": True,
        "resample": 3,
    }
    write_json(
        folder / "preprocessor_config.json",
        {**steps, "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    )


def squash_processor(folder: Path, kind: str, resample: int) -> None:
    steps = {"do_resize": True, "size": {"height": SIZE, "width": SIZE}, "do_normalize": True, "resample": resample}
    steps |= {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": HALF, "image_std": HALF}
    write_json(folder / "preprocessor_config.json", {**steps, "image_processor_type": kind})


def clip(folder: Path) -> None:
    vocabulary, merges = byte_vocabulary(["<|startoftext|>", "<|endoftext|>"], ends=True)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    text = {**SHAPE, **WIDE, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 77}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**PICTURE, **WIDE}, projection_dim=16, initializer_factor=4.0
    )
    save_model(transformers.CLIPModel(config), folder)
    clip_processor(folder)


def open_clip(folder: Path) -> None:
    """As LAION's are published: texts end where the greatest id is, and are padded by another token."""
    clip(folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", text_config={**text, "eos_token_id": 2})
    change(folder / "tokenizer_config.json", pad_token="!")


def siglip(folder: Path) -> None:
    known = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), *((letter, -5.0) for letter in letters()), ("▁red", -3.0)]
    tokenizer = Tokenizer(models.Unigram(known, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>", model_max_length=64
    )
    fast.save_pretrained(folder)
    siglip_model(folder, len(known), bos_token_id=None, eos_token_id=1, pad_token_id=1)
    squash_processor(folder, "SiglipImageProcessor", 3)


def siglip_pieces(folder: Path) -> None:
    """As SigLIP's are published: by a class that wants sentencepiece, with a tokenizer.json beside it."""
    siglip(folder)
    ends = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 64}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "SiglipTokenizer", **ends})


def siglip2(folder: Path) -> None:
    """SigLIP 2 of a fixed size: another tokenizer, and bilinear pictures."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters()]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=[], model_max_length=64, padding_side="right")
    tokenizer.save_pretrained(folder)
    siglip_model(folder, len(vocabulary), bos_token_id=2, eos_token_id=1, pad_token_id=0)
    squash_processor(folder, "SiglipImageProcessor", 2)


def siglip_model(folder: Path, words: int, **ids: int | None) -> None:
    text = {**SHAPE, **ids, "vocab_size": words, "max_position_embeddings": 64, "projection_size": 32}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=PICTURE))
    save_model(widened(model), folder)


def vit(folder: Path) -> None:
    """Fine-tuned, so without a pooler, and with a classifier that is of no use."""
    config = transformers.ViTConfig(**PICTURE, **WIDE, num_labels=3)
    save_model(transformers.ViTForImageClassification(config), folder)
    squash_processor(folder, "ViTImageProcessor", 2)


def clap(folder: Path, *, fused: bool = False) -> None:
    vocabulary, merges = byte_vocabulary(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=64).save_pretrained(folder)
    audio: dict[str, Any] = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 2,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 64,
    }
    audio |= {"depths": [1, 1, 1], "num_attention_heads": [2, 2, 2], "num_hidden_layers": 3, "aff_block_r": 1}
    text = {**SHAPE, **WIDE, "vocab_size": len(vocabulary), "max_position_embeddings": 66}
    config = transformers.ClapConfig(
        text_config=text,
        audio_config={**audio, "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None},
        projection_dim=16,
    )
    model = transformers.ClapModel(config)
    widened(model.text_model)
    save_model(model, folder)
    transformers.ClapFeatureExtractor(
        feature_size=16,
        max_length_s=2,
        sampling_rate=16_000,
        frequency_max=8000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)


def sentences(folder: Path, *, pooling: str = "mean_tokens", kind: str = "bert") -> None:
    config, tokenizer = TEXT_MODELS[kind]()
    tokenizer.save_pretrained(folder)
    save_model(widened(transformers.AutoModel.from_config(config)), folder)
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    modes = {f"pooling_mode_{name}": name == pooling for name in names}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **modes})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})


def bert() -> tuple[Any, Any]:
    vocabulary = word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    config = transformers.BertConfig(**SHAPE, vocab_size=len(vocabulary), max_position_embeddings=64)
    return config, transformers.BertTokenizer(vocab=vocabulary, model_max_length=64)


def mpnet() -> tuple[Any, Any]:
    vocabulary = word_pieces(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    config = transformers.MPNetConfig(**SHAPE, vocab_size=len(vocabulary), max_position_embeddings=66)
    return config, transformers.MPNetTokenizer(vocab=vocabulary, model_max_length=64)


def distilbert() -> tuple[Any, Any]:
    vocabulary = word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    shape = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
    config = transformers.DistilBertConfig(**shape, vocab_size=len(vocabulary))
    return config, transformers.BertTokenizer(vocab=vocabulary, model_max_length=64)


def roberta() -> tuple[Any, Any]:
    vocabulary, merges = byte_vocabulary(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = transformers.RobertaConfig(**SHAPE, vocab_size=len(vocabulary), max_position_embeddings=66)
    return config, transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=64)


def xlm_roberta() -> tuple[Any, Any]:
    known = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁red", -3.0)]
    known += [(letter, -5.0) for letter in letters()] + [("<mask>", 0.0)]
    config = transformers.XLMRobertaConfig(**SHAPE, vocab_size=len(known), max_position_embeddings=66)
    return config, transformers.XLMRobertaTokenizer(vocab=known, model_max_length=64)


def widened(model: Any) -> Any:
    """Spread the weights, so that one input's vector is unlike another's."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.25)
    return model


TEXT_MODELS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "bert": bert,
    "mpnet": mpnet,
    "distilbert": distilbert,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
}
