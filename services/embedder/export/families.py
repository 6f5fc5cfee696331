"""The families of models that can be built, recognised by their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import Tensor

from services.embedder.core.catalog import TOKEN_INPUTS, Padding
from services.embedder.export import loading
from services.embedder.export.errors import ExportError
from services.embedder.export.parts import AudioPart, ImagePart, Parts, TextPart, Tower, pooled_output
from services.embedder.export.prefixes import choose_prefixes
from services.embedder.export.sources import Source

Config = Mapping[str, Any]

POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Models whose positions start after the padding token's id, so that fewer tokens fit."""

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra")
"""Text encoders that take ids and a mask, and can be pooled."""

SENTENCES_CONFIG = "sentence_bert_config.json"
POOLINGS = ("mean", "cls", "max")
NOT_ENCODERS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")

NO_AUDIO_NOTE = "Sounds cannot be embedded yet: the embedder decodes no audio. The audio tower is kept for later."
FUSION_NOTE = (
    "Its audio tower is left out: it fuses features of parts of a long sound, which has no single input tensor."
)


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Options for a text model that its folder may not state; None uses what the folder states."""

    query_prefix: str | None = None
    document_prefix: str | None = None
    pooling: str | None = None


def load_parts(source: Source, options: TextOptions) -> Parts:
    """Load the towers of the model of `source`.

    Raises:
        ExportError: its family is not supported, or files are missing.
    """
    config = source.json("config.json")
    if not config:
        raise ExportError(f"{source.given} has no config.json{_hint(source)}; {describe_families()}")
    kind = str(config.get("model_type", ""))
    family = FAMILIES.get(kind)
    if family is None:
        raise ExportError(
            f"{source.given} is of type {kind or 'unknown'!r}, which cannot be built; {describe_families()}"
        )
    if kind not in ENCODERS and options != TextOptions():
        raise ExportError(f"{source.given} is of type {kind!r}: prefixes and pooling are only for text models")
    return family(source, config, options)


def describe_families() -> str:
    """Return a description of the families that can be built."""
    return (
        "families are CLIP and OpenCLIP in the format of transformers (clip), SigLIP and SigLIP 2 (siglip), "
        f"ViT (vit), CLAP (clap), and sentence-transformers models ({', '.join(ENCODERS)})"
    )


def _hint(source: Source) -> str:
    if (source.folder / "open_clip_config.json").is_file():
        return " but an open_clip_config.json: take the same model's folder in the format of transformers"
    return ""


def _clip(source: Source, config: Config, _: TextOptions) -> Parts:
    model = loading.model(transformers.CLIPModel, source)
    tokenizer, original = loading.load_tokenizers(source)
    length = model.config.text_config.max_position_embeddings
    text = TextPart(
        Tower(model, _text_features),
        tokenizer,
        # Its attention is causal, and the vector is taken at the end of the text, so padding has no effect. Texts are
        # not padded here, which is many times as fast; the reference inputs are padded as in the original.
        loading.reference_inputs(original, TOKEN_INPUTS, padding="max_length", max_length=length),
        length,
    )
    return Parts("CLIP", text, _picture(model, source, model.config.vision_config.image_size))


def _siglip(source: Source, config: Config, _: TextOptions) -> Parts:
    model = loading.model(transformers.SiglipModel, source)
    tokenizer, original = loading.load_tokenizers(source)
    length = model.config.text_config.max_position_embeddings
    if original.pad_token_id is None:
        raise ExportError(f"the tokenizer of {source.given} has no token to pad with")
    text = TextPart(
        Tower(model, lambda model, ids: pooled_output(model.get_text_features(input_ids=ids))),
        tokenizer,
        loading.reference_inputs(original, ("input_ids",), padding="max_length", max_length=length),
        length,
        # It is trained on texts of full length without a mask, and its vector is taken at the last position.
        Padding(length, original.pad_token_id),
        ("input_ids",),
    )
    return Parts("SigLIP", text, _picture(model, source, model.config.vision_config.image_size))


def _naflex(source: Source, config: Config, _: TextOptions) -> Parts:
    raise ExportError(
        f"{source.given} is a SigLIP 2 model for pictures of any proportions (NaFlex), which has no fixed input; take "
        "one of a fixed size, such as google/siglip2-base-patch16-224"
    )


def _vit(source: Source, config: Config, _: TextOptions) -> Parts:
    # The class token after the last norm, not the pooler: fine-tuned checkpoints have no pooler weights, and where
    # they do, the pooler ends in a tanh that was trained for a classifier.
    model = loading.model(transformers.ViTModel, source, unused=("pooler",), add_pooling_layer=False)
    tower = Tower(model, lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, 0])
    preprocessing, processor = loading.pictures(source, model.config.image_size)
    return Parts("ViT", image=ImagePart(tower, preprocessing, processor))


def _clap(source: Source, config: Config, _: TextOptions) -> Parts:
    model = loading.model(transformers.ClapModel, source)
    tokenizer, original = loading.load_tokenizers(source)
    length = _max_tokens(source, model.config.text_config, "roberta", original)
    options = {"padding": True, "max_length": length}
    text = TextPart(
        Tower(model, _text_features), tokenizer, loading.reference_inputs(original, TOKEN_INPUTS, **options), length
    )
    if model.config.audio_config.enable_fusion:
        return Parts("CLAP", text, notes=(FUSION_NOTE,))
    extractor = transformers.ClapFeatureExtractor.from_pretrained(source.folder, local_files_only=True)
    features = {
        name: value for name, value in extractor.to_dict().items() if isinstance(value, str | int | float | bool | None)
    }
    tower = Tower(model, lambda model, features: pooled_output(model.get_audio_features(input_features=features)))
    return Parts("CLAP", text, audio=AudioPart(tower, features, extractor), notes=(NO_AUDIO_NOTE,))


def _sentence_transformer(source: Source, config: Config, options: TextOptions) -> Parts:
    for name in config.get("architectures") or ():
        if name.endswith(NOT_ENCODERS):
            raise ExportError(f"{source.given} is a {name}, which scores texts and does not embed them")
    pooling = _pooling(source, options)
    model = loading.model(transformers.AutoModel, source, unused=("pooler",))
    tokenizer, original = loading.load_tokenizers(source)
    length = _max_tokens(source, model.config, config["model_type"], original)
    reference = loading.reference_inputs(original, TOKEN_INPUTS, padding=True, max_length=length)
    if source.json(SENTENCES_CONFIG).get("do_lower_case"):
        tokenizer.normalizer, reference = _lower_case(tokenizer), _lower_case_inputs(reference)
    prompts, names = (
        source.json("config_sentence_transformers.json"),
        (source.given, str(config.get("_name_or_path", ""))),
    )
    prefixes = choose_prefixes(prompts, names, options.query_prefix, options.document_prefix)
    text = TextPart(Tower(model, POOLING_FUNCTIONS[pooling]), tokenizer, reference, length, prefixes=prefixes.prefixes)
    notes = (f"Pooling: {pooling}.", f"Prefixes: {prefixes.reason}.")
    return Parts("sentence-transformers", text, notes=notes)


def _text_features(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    return pooled_output(model.get_text_features(input_ids=ids, attention_mask=mask))


def _picture(model: Any, source: Source, size: int) -> ImagePart:
    preprocessing, processor = loading.pictures(source, size)
    tower = Tower(model, lambda model, pixels: pooled_output(model.get_image_features(pixel_values=pixels)))
    return ImagePart(tower, preprocessing, processor)


def _hidden_states(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return states


def _mean(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    states = _hidden_states(model, ids, mask)
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _class_token(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    return _hidden_states(model, ids, mask)[:, 0]


def _max(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    states = _hidden_states(model, ids, mask)
    return states.masked_fill(mask.unsqueeze(-1) == 0, -1e9).max(1).values


POOLING_FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {"mean": _mean, "cls": _class_token, "max": _max}


def _pooling(source: Source, options: TextOptions) -> str:
    """Return the pooling of a text model, from its modules.json and the files it names."""
    path = source.folder / "modules.json"
    if not path.is_file():
        if options.pooling:
            return options.pooling
        raise ExportError(
            f"{source.given} has no modules.json, which states the pooling; set it with --pooling "
            f"{'|'.join(POOLINGS)} if you know"
        )
    modules = loading.read_list(path)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ExportError(f"{source.given} is made of {', '.join(kinds)}; expected Transformer, Pooling, Normalize")
    pooling = source.json(f"{modules[1].get('path', '1_Pooling')}/config.json")
    found = _named_pooling(source, pooling)
    if options.pooling not in (None, found):
        raise ExportError(f"{source.given} says its pooling is {found!r}, not {options.pooling!r}")
    return found


def _named_pooling(source: Source, config: Config) -> str:
    if config.get("include_prompt") is False:
        raise ExportError(f"{source.given} excludes prompts from the pooling, which is not supported")
    if "pooling_mode" in config:
        modes = [config["pooling_mode"]] if isinstance(config["pooling_mode"], str) else list(config["pooling_mode"])
    else:
        modes = [name.removeprefix("pooling_mode_") for name, value in config.items() if value is True]
    names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    modes = [names.get(mode, mode) for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ExportError(
            f"{source.given} pools by {', '.join(modes) or 'nothing'}; expected one of {', '.join(POOLINGS)}"
        )
    return modes[0]


def _max_tokens(source: Source, config: Any, kind: str, original: Any) -> int:
    """Return the token limit: that of the model's files, at most the number of positions."""
    positions = config.max_position_embeddings
    if kind in POSITIONS_AFTER_PADDING:
        positions -= config.pad_token_id + 1
    stated = source.json(SENTENCES_CONFIG).get("max_seq_length") or original.model_max_length
    return int(min(positions, stated))


def _lower_case(tokenizer: Any) -> Any:
    from tokenizers import normalizers

    steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
    return normalizers.Sequence(steps)


def _lower_case_inputs(reference: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    return lambda texts: reference([text.lower() for text in texts])


FAMILIES: Mapping[str, Callable[[Source, Config, TextOptions], Parts]] = {
    "clip": _clip,
    "siglip": _siglip,
    "siglip2": _naflex,
    "vit": _vit,
    "clap": _clap,
    **dict.fromkeys(ENCODERS, _sentence_transformer),
}
