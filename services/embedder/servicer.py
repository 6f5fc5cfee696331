"""EmbedderService over gRPC: messages in, domain call, messages out."""

from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.common.paging import key_before, page_size, page_token
from services.common.rpc.interceptors import Context
from services.embedder import codec
from services.embedder.core.catalog import ModelCatalog
from services.embedder.inference.embedder import Embedder


class EmbedderServicer(pb_grpc.EmbedderServiceServicer):
    """Translates between the wire and `Embedder`."""

    def __init__(self, embedder: Embedder, catalogue: ModelCatalog) -> None:
        self._embedder = embedder
        self._catalogue = catalogue

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        page = self._catalogue.page(key_before(request.page_token), page_size(request.page_size))
        models = [codec.to_model(model, self._catalogue.fingerprint(model.name)) for model in page.models]
        return pb.ListModelsResponse(models=models, next_page_token=page_token(models[-1].name) if page.more else "")

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        model = self._catalogue.get(request.name)
        return pb.GetModelResponse(model=codec.to_model(model, self._catalogue.fingerprint(model.name)))

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        inputs = [codec.from_input(message) for message in request.inputs]
        purpose = codec.from_purpose(request.purpose)
        return codec.to_response(await self._embedder.embed(request.model, request.fingerprint, inputs, purpose))

    async def InspectMedia(self, request: pb.InspectMediaRequest, context: Context) -> pb.InspectMediaResponse:
        return codec.to_inspected(await self._embedder.inspect(request.data))
