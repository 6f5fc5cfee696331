"""The collections that this process follows."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

from services.common.errors import ServiceError
from services.search.core.change_feed import ChangeFeed
from services.search.replication.replica import MakeIndex, Replica, Restore

log = logging.getLogger(__name__)


class Replicas:
    """One `Replica` a collection: for those there are at the start, those found later, and those first asked for."""

    def __init__(self, feed: ChangeFeed, make_index: MakeIndex, restore: Restore | None = None) -> None:
        self._feed = feed
        self._make_index = make_index
        self._restore = restore
        self._replicas: dict[str, Replica] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, discover_seconds: float, warm_seconds: float) -> AsyncIterator[None]:
        """Follow while the block runs, looking for new collections, and new versions, every `discover_seconds`.

        The block begins once each collection there is has an index, or after `warm_seconds`.
        """
        try:
            self._spawn(self._discover(discover_seconds, discovered := asyncio.Event()))
            try:
                async with asyncio.timeout(warm_seconds):
                    await discovered.wait()
                    await asyncio.gather(*(replica.until_ready() for replica in self.all()))
            except TimeoutError:
                log.warning("not every index is filled after %g s; searches wait for theirs", warm_seconds)
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self) -> Sequence[Replica]:
        """Return the followers, by collection; any thread may ask."""
        return sorted(list(self._replicas.values()), key=lambda replica: replica.collection)

    async def get(self, collection: str) -> Replica:
        """Return the follower of `collection`.

        Raises:
            CollectionNotFoundError: there is no such collection.
            UnavailableError: it is not followed yet, and the store does not answer.
        """
        if collection not in self._replicas:
            await self._feed.table(collection)
        return self._follow(collection)

    async def _discover(self, seconds: float, discovered: asyncio.Event) -> None:
        while True:
            try:
                for table in await self._feed.tables():
                    self._follow(table.collection).observe(table.version)
            except ServiceError as error:
                log.warning("collections cannot be listed now: %s", error)
            except Exception:
                log.exception("collections cannot be listed")
            discovered.set()
            await asyncio.sleep(seconds)

    def _follow(self, collection: str) -> Replica:
        if collection not in self._replicas:
            self._replicas[collection] = Replica(collection, self._feed, self._make_index, self._restore)
            self._spawn(self._run(self._replicas[collection]))
        return self._replicas[collection]

    async def _run(self, replica: Replica) -> None:
        await replica.run()
        del self._replicas[replica.collection]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in a context of its own: the deadline of the call that asked for it is not its deadline."""
        task = asyncio.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
