"""The embedder over gRPC."""

from collections.abc import Sequence

from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import item_pb2
from services.common.content import ContentType
from services.common.enum_codec import CONTENT_TYPES, METRICS, from_proto
from services.common.errors import ServiceError
from services.common.rpc.client import call
from services.common.vectors import from_bytes
from services.gateway.adapters.listing import list_all
from services.gateway.adapters.statuses import to_error
from services.gateway.core.embedder import Content, Embedding, Model, Purpose
from services.gateway.core.items import MediaFacts
from services.gateway.peers import EmbedderStub

EMBED_SECONDS = 120.0

_PURPOSES = {purpose: pb.EmbedPurpose.Value(f"EMBED_PURPOSE_{purpose.name}") for purpose in Purpose}


class GrpcEmbedder:
    """`Embedder` and `ModelLister` over one stub; listed models are the API's messages."""

    def __init__(self, stub: EmbedderStub) -> None:
        self._stub = stub

    async def get_model(self, name: str) -> Model:
        response: pb.GetModelResponse = await call("embedder", self._stub.GetModel, pb.GetModelRequest(name=name))
        return _model(response.model)

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedding | ServiceError]:
        request = pb.EmbedRequest(
            model=model, fingerprint=fingerprint, inputs=map(_input, inputs), purpose=_PURPOSES[purpose]
        )
        response: pb.EmbedResponse = await call("embedder", self._stub.Embed, request, seconds=EMBED_SECONDS)
        return [_embedded(result) for result in response.results]

    async def inspect(self, data: bytes) -> MediaFacts:
        request = pb.InspectMediaRequest(data=data)
        response: pb.InspectMediaResponse = await call("embedder", self._stub.InspectMedia, request)
        return _facts(response.media, from_proto("content_type", response.content_type, CONTENT_TYPES))

    async def list_models(self) -> list[pb.Model]:
        return await list_all("embedder", self._stub.ListModels, pb.ListModelsRequest, lambda page: page.models)


def _model(message: pb.Model) -> Model:
    inputs = tuple(from_proto("inputs", number, CONTENT_TYPES) for number in message.inputs)
    metric = from_proto("metric", message.metric, METRICS)
    return Model(message.name, message.dimensions, metric, inputs, message.fingerprint)


def _input(content: Content) -> pb.EmbedInput:
    return pb.EmbedInput(text=content) if isinstance(content, str) else pb.EmbedInput(image=content)


def _embedded(result: pb.EmbedResult) -> Embedding | ServiceError:
    if result.HasField("error"):
        return to_error(result.error)
    media = result.embedding.media
    facts = _facts(media, ContentType.IMAGE) if result.embedding.HasField("media") else None
    return Embedding(from_bytes(result.embedding.vector.float32_le), facts)


def _facts(media: item_pb2.Media, content_type: ContentType) -> MediaFacts:
    return MediaFacts(content_type, media.sha256, media.mime_type, media.size_bytes, media.width, media.height)
