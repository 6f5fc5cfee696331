"""Golden vectors: the vectors that the ONNX runtime computes for fixed inputs, to verify a server against.

They are a parameter of the Triton model, so that a client needs neither weights nor a runtime to verify it.
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
"""Short, long, and beyond ASCII, so that a wrong tokenizer, padding or truncation is noticed."""

ROWS = 2
"""Number of golden pictures of an image tower, and of golden rows of a text projection."""

EXACT_COSINE = 0.9999
"""For weights and activations in floating point, where only the order of additions may differ."""

QUANTIZED_COSINE = 0.999
"""For activations quantised at run time. In a batch of one, unpadded, a text's vector is bit-identical under the same
build; other processors' int8 kernels change it slightly. In a batch the cosine drops to 0.98, which must not pass."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The vectors of the golden inputs, shape (inputs, dimensions), and the cosine a server must reach to each."""

    vectors: Matrix
    min_cosine: float

    def to_text(self) -> str:
        """Serialize it as the value of a parameter."""
        encoded = base64.b64encode(self.vectors.astype("<f4").tobytes()).decode()
        return json.dumps({"min_cosine": self.min_cosine, "inputs": len(self.vectors), "float32_le": encoded})

    @classmethod
    def from_text(cls, text: str) -> "Golden":
        """Parse the text that `to_text` returns.

        Raises:
            ValueError: the text is not of that format.
        """
        try:
            fields = json.loads(text)
            vectors = np.frombuffer(base64.b64decode(fields["float32_le"], validate=True), "<f4")
            return cls(vectors.reshape(int(fields["inputs"]), -1), float(fields["min_cosine"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no golden vectors: {error}") from error


def golden_rows(*shape: int) -> Pixels:
    """Return the golden rows, each of `shape`: sawtooth waves, bit-identical on every machine."""
    indices = np.arange(int(np.prod(shape)))
    waves = [indices * step % 251 for step in (7, 101)[:ROWS]]
    rows: Pixels = np.stack(waves).astype(np.float32) / np.float32(125) - np.float32(1)
    return rows.reshape(ROWS, *shape)
