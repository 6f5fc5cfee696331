"""Kinds of content."""

from enum import Enum


class ContentType(Enum):
    """What an item, a query or a model's input is."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
