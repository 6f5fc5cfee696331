"""Triton model repositories, written from folders of models."""

from services.embedder.triton_repository.layout import Flavour, identity
from services.embedder.triton_repository.writer import write_repository

__all__ = ["Flavour", "identity", "write_repository"]
