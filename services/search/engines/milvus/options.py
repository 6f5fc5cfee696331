"""Where Milvus is, and how it is used."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MilvusOptions:
    """`uri` is http(s)://host:port of a Milvus, or the path of a file for Milvus Lite in this process.

    All names begin with `prefix`, which no other Medley on the same Milvus may have. Reads get at most `seconds`,
    writes `write_seconds`, building and loading an index `build_seconds`. Without `writer`, this process only reads.
    `gpu` builds the GPU's index types. `grace_seconds` is how long what a version shows is kept once the next is there.
    """

    uri: str
    token: str = field(default="", repr=False)
    database: str = ""
    prefix: str = "medley"
    consistency: str = "Strong"
    seconds: float = 10.0
    write_seconds: float = 60.0
    build_seconds: float = 3600.0
    grace_seconds: float = 60.0
    writer: bool = True
    gpu: bool = False
