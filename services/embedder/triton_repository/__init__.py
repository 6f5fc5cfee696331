"""Triton model repositories, written from folders of models."""

from services.embedder.adapters.triton.layout import IDENTITY, Flavour
from services.embedder.triton_repository.writer import write_repository

__all__ = ["IDENTITY", "Flavour", "write_repository"]
