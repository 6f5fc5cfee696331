"""EmbedderService over gRPC: messages in, domain call, messages out."""

from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.common.paging import decode_page_token, encode_page_token, validate_page_size
from services.common.rpc.interceptors import Context
from services.embedder import codec
from services.embedder.core.catalog import ModelCatalog
from services.embedder.inference.embedder import Embedder


class EmbedderServicer(pb_grpc.EmbedderServiceServicer):
    """Translates between the wire and `Embedder`."""

    def __init__(self, embedder: Embedder, catalog: ModelCatalog) -> None:
        self._embedder = embedder
        self._catalog = catalog

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        page = self._catalog.page(decode_page_token(request.page_token), validate_page_size(request.page_size))
        models = [codec.to_model(model, self._catalog.fingerprint(model.name)) for model in page.models]
        return pb.ListModelsResponse(
            models=models, next_page_token=encode_page_token(models[-1].name) if page.more else ""
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        model = self._catalog.get(request.name)
        return pb.GetModelResponse(model=codec.to_model(model, self._catalog.fingerprint(model.name)))

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        inputs = [codec.from_input(message) for message in request.inputs]
        purpose = codec.from_purpose(request.purpose)
        return codec.to_embed_response(await self._embedder.embed(request.model, request.fingerprint, inputs, purpose))

    async def InspectMedia(self, request: pb.InspectMediaRequest, context: Context) -> pb.InspectMediaResponse:
        return codec.to_inspect_response(await self._embedder.inspect(request.data))
