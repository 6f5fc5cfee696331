"""Fingerprints: a hash of everything that determines a model's vectors, so that different ones are never mixed.

Included: the SHA-256 of every graph and tokenizer that a vector passes through (with those of a projection's base
model), the token limit, padding and prefixes, the parameters of picture preprocessing with the version of its code, and
the runtime's identity. Not included: names and summaries, the number of threads, and the release of the runtime, which
may change the last digits but no ranking, and would make every upgrade a re-embedding.
"""

import hashlib
import json

LENGTH = 32


def compute_fingerprint(inputs: object) -> str:
    """Return 32 lower-case hexadecimal digits for `inputs`, made of dicts, lists, strings, numbers and None."""
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]
