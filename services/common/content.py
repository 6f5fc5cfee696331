"""Kinds of content."""

from enum import Enum


class ContentType(Enum):
    """The kind of content of an item, a query or a model's input."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
