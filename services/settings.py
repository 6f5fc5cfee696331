"""Settings of all four services in one process: each reads its own environment variables."""

from dataclasses import dataclass, field

from services.embedder.settings import EmbedderSettings
from services.gateway.settings import GatewaySettings
from services.search.settings import SearchSettings
from services.store.settings import StoreSettings


@dataclass(frozen=True)
class SuiteSettings:
    """Settings of the process; read once, in `__main__`. Addresses of other services are ignored: they run here."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    embedder: EmbedderSettings = field(default_factory=EmbedderSettings)
    store: StoreSettings = field(default_factory=StoreSettings)

    @property
    def search_settings(self) -> SearchSettings:
        """The settings of search; by default it keeps snapshots in the store's folder, if the store has one."""
        defaults: dict[str, object] = {"snapshots": "folder"} if self.store.rows == "lance" else {}
        defaults["snapshots_dir"] = self.store.directory / "snapshots"
        explicit = self.search.model_fields_set
        return self.search.model_copy(update={name: value for name, value in defaults.items() if name not in explicit})
