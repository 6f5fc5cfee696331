"""Conversion between the embedder's values and messages."""

from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import item_pb2, vector_pb2
from services.common.content import ContentType
from services.common.enum_codec import CONTENT_TYPES, METRICS
from services.common.errors import ArgumentError, ServiceError
from services.common.rpc.statuses import to_status
from services.common.vectors import to_bytes
from services.embedder.core.catalog import Model, Purpose
from services.embedder.inference.embedder import Embedding, EmbedResults, Input, Outcome
from services.embedder.media.images import Media

_PURPOSES: dict[int, Purpose] = {pb.EmbedPurpose.Value(f"EMBED_PURPOSE_{purpose.name}"): purpose for purpose in Purpose}


def to_model(model: Model, fingerprint: str) -> pb.Model:
    """Return `model` as a message."""
    return pb.Model(
        name=model.name,
        dimensions=model.dimensions,
        metric=METRICS[model.metric],
        inputs=[CONTENT_TYPES[content] for content in model.inputs],
        fingerprint=fingerprint,
        summary=model.summary,
    )


def from_input(message: pb.EmbedInput) -> Input:
    """Return the content of `message`; None if it is unset."""
    match message.WhichOneof("content"):
        case "text":
            return message.text
        case "image":
            return message.image
        case _:
            return None


def from_purpose(number: int) -> Purpose | None:
    """Return the purpose with the `number`; None if it is unset.

    Raises:
        ArgumentError: there is no such purpose.
    """
    if number and number not in _PURPOSES:
        raise ArgumentError("purpose", number, f"must be one of {', '.join(map(str, (0, *_PURPOSES)))}")
    return _PURPOSES.get(number)


def to_embed_response(embedded: EmbedResults) -> pb.EmbedResponse:
    """Return the response of Embed."""
    return pb.EmbedResponse(results=map(_to_result, embedded.outcomes), fingerprint=embedded.fingerprint)


def to_inspect_response(media: Media) -> pb.InspectMediaResponse:
    """Return the response of InspectMedia."""
    return pb.InspectMediaResponse(media=_to_media(media), content_type=CONTENT_TYPES[ContentType.IMAGE])


def _to_result(outcome: Outcome) -> pb.EmbedResult:
    match outcome:
        case Embedding(vector, media):
            message = vector_pb2.Vector(float32_le=to_bytes(vector))
            return pb.EmbedResult(
                embedding=pb.Embedding(vector=message, media=None if media is None else _to_media(media))
            )
        case ServiceError():
            return pb.EmbedResult(error=to_status(outcome))


def _to_media(media: Media) -> item_pb2.Media:
    return item_pb2.Media(
        sha256=media.sha256,
        mime_type=media.mime_type,
        size_bytes=media.size_bytes,
        width=media.width,
        height=media.height,
    )
