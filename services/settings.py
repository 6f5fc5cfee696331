"""Settings of all four services in one process: each has its own, from its own part of the environment."""

from dataclasses import dataclass, field

from services.embedder.settings import EmbedderSettings
from services.gateway.settings import GatewaySettings
from services.search.settings import SearchSettings
from services.store.settings import StoreSettings


@dataclass(frozen=True)
class SuiteSettings:
    """What the process needs to know; read once, in `__main__`. Addresses of neighbours are not used: they are here."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    embedder: EmbedderSettings = field(default_factory=EmbedderSettings)
    store: StoreSettings = field(default_factory=StoreSettings)

    @property
    def search_settings(self) -> SearchSettings:
        """The settings of search: beside a store that keeps rows in a folder its snapshots lie there, too."""
        here: dict[str, object] = {"snapshots": "folder"} if self.store.rows == "lance" else {}
        here["snapshots_dir"] = self.store.directory / "snapshots"
        told = self.search.model_fields_set
        return self.search.model_copy(update={name: value for name, value in here.items() if name not in told})
