"""Text models that continue another one."""

from collections.abc import Sequence

from services.common.vectors import Matrix
from services.embedder.core.encoder import TensorEncoder, TextEncoder


class ProjectedTextEncoder:
    """A `TextEncoder` that takes the vectors of `trunk` through `head`."""

    def __init__(self, trunk: TextEncoder, head: TensorEncoder) -> None:
        self._trunk = trunk
        self._head = head

    async def warm(self) -> None:
        """Get both ready."""
        await self._trunk.warm()
        await self._head.warm()

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return the vectors of `texts`."""
        return await self._head.encode(await self._trunk.encode(texts))
