"""Text models that project the vectors of another model."""

from collections.abc import Sequence

from services.common.vectors import Matrix
from services.embedder.core.encoder import TensorEncoder, TextEncoder


class ProjectedTextEncoder:
    """A `TextEncoder` that applies `projection` to the vectors of `base`."""

    def __init__(self, base: TextEncoder, projection: TensorEncoder) -> None:
        self._base = base
        self._projection = projection

    async def warm(self) -> None:
        await self._base.warm()
        await self._projection.warm()

    async def encode(self, texts: Sequence[str]) -> Matrix:
        return await self._projection.encode(await self._base.encode(texts))
