"""Golden vectors: what the runtime in process makes of fixed inputs, so that a server can be held to them.

They travel as a parameter of the Triton model, so that a client needs neither weights nor a runtime to check.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np

from services.common.vectors import Matrix
from services.embedder.core.preprocessing import Pixels

TEXTS = (
    "a red shoe",
    "Ein grüner Stuhl für 20 €, größer als 1 m 👟",
    "京都の古い寺",
    "two blue hats on a long wooden table beside the window, photographed from above late in the evening",
)
"""Short, long, and beyond ASCII, so that a wrong tokenizer, padding or a cut-off string shows."""

ROWS = 2
"""Golden pictures of an image tower, and golden rows of a text head."""

EXACT_COSINE = 0.9999
"""Where weights and activations are floats, only the order of additions may differ."""

QUANTISED_COSINE = 0.999
"""Where activations are quantised while running. Alone and unpadded such a text has the same bits under the same build;
another processor's int8 kernels may move it a little; in a batch it falls to 0.98, which must not pass."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The vectors of the golden inputs, shape (inputs, dimensions), and the cosine a server must reach to each."""

    vectors: Matrix
    least_cosine: float

    def to_text(self) -> str:
        """Return it as text for a parameter."""
        encoded = base64.b64encode(self.vectors.astype("<f4").tobytes()).decode()
        return json.dumps({"least_cosine": self.least_cosine, "inputs": len(self.vectors), "float32_le": encoded})

    @classmethod
    def from_text(cls, text: str) -> "Golden":
        """Return what `to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            fields = json.loads(text)
            vectors = np.frombuffer(base64.b64decode(fields["float32_le"], validate=True), "<f4")
            return cls(vectors.reshape(int(fields["inputs"]), -1), float(fields["least_cosine"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no golden vectors: {error}") from error


def golden_rows(*shape: int) -> Pixels:
    """Return the golden rows of `shape` each: waves of their own length, equal to the last bit on every machine."""
    places = np.arange(int(np.prod(shape)))
    waves = [places * step % 251 for step in (7, 101)[:ROWS]]
    rows: Pixels = np.stack(waves).astype(np.float32) / np.float32(125) - np.float32(1)
    return rows.reshape(ROWS, *shape)
