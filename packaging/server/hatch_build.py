"""Completes the metadata of `medley-server`."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ServerMetadata(MetadataHookInterface):
    """Requires `medley` in the server's version: the two are released together."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies."""
        metadata["dependencies"] = [f"medley[cli]=={metadata['version']}", *self.config["dependencies"]]
