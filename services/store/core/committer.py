"""Commits mutations to one table in order; mutations that arrive during a commit share the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from services.common.concurrency.retry import Backoff, retry
from services.common.errors import OverloadedError, ServiceError
from services.common.index_config import IndexConfig
from services.store.core.mutations import MutationResult, Rows
from services.store.core.rows import NO_FIELDS, Row, RowFields
from services.store.core.table import Table, WriteConflictError

MAX_ATTEMPTS = 20
BACKOFF = Backoff(first=0.02, longest=0.4)
T = TypeVar("T")


class Mutation(Protocol[T]):
    """A change of rows that depends on the rows as they are at the commit."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the rows it reads, and the only ones it may change."""
        ...

    @property
    def fields(self) -> RowFields:
        """The fields of those rows that it reads."""
        ...

    def apply(self, current: Rows, now: datetime) -> MutationResult[T]:
        """Return the changes to make given the `current` rows; after a conflict it is called again with newer ones.

        Raises:
            ServiceError: the mutation is refused.
        """
        ...


@dataclass(frozen=True, slots=True)
class CommitResult(Generic[T]):
    """The result of a mutation, and the commit that contains it."""

    result: T
    version: int


@dataclass(frozen=True, slots=True)
class _Pending:
    mutation: Mutation[Any]
    done: asyncio.Future[CommitResult[Any]]


class Committer:
    """Commits mutations in the order they arrive.

    At most `max_rows` rows may wait; further mutations are refused. A single mutation may have more.
    """

    def __init__(self, table: Table, *, max_rows: int, clock: Callable[[], datetime]) -> None:
        self._table = table
        self._max_rows = max_rows
        self._clock = clock
        self._pending: list[_Pending] = []
        self._task: asyncio.Task[None] | None = None
        self._configurations: set[asyncio.Task[int]] = set()

    async def commit(self, mutation: Mutation[T]) -> CommitResult[T]:
        """Apply `mutation`; return once it is durable. Cancelling the caller does not undo it.

        Raises:
            OverloadedError: too many rows wait, or other processes keep committing first.
            ServiceError: the mutation is refused.
        """
        waiting = sum(len(each.mutation.ids) for each in self._pending)
        if waiting and waiting + len(mutation.ids) > self._max_rows:
            raise OverloadedError(f"{waiting} rows wait to be written", queue="writes", limit=str(self._max_rows))
        done: asyncio.Future[CommitResult[T]] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(mutation, done))
        if self._task is None or self._task.done():
            # In an empty context: it commits for other callers too, and this caller's deadline is not theirs.
            self._task = asyncio.create_task(self._run(), context=Context())
        return await done

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Change the index of a space, concurrently with writes of rows; return the newest commit once it is durable.

        Cancelling the caller does not undo it.

        Raises:
            SpaceNotFoundError: there is no such space.
            OverloadedError: other processes keep committing first.
        """
        change = asyncio.create_task(retry_conflicts(partial(self._table.configure, space, index)), context=Context())
        self._configurations.add(change)
        change.add_done_callback(self._configurations.discard)
        return await asyncio.shield(change)

    async def drain(self) -> None:
        """Wait until every mutation is committed."""
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._configurations, return_exceptions=True)

    async def _run(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                await retry_conflicts(partial(self._commit, batch))
            except Exception as error:
                _fail(batch, error)

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        ids = {row_id for each in batch for row_id in each.mutation.ids}
        found = await self._table.get(ids, NO_FIELDS.union(*(each.mutation.fields for each in batch)))
        writes = WriteBatch(dict(found.rows), self._clock())
        results = [writes.apply(each.mutation) for each in batch]
        version = await self._table.write(*writes.changes(), found.version) if writes.changed else found.version
        for each, result in zip(batch, results, strict=True):
            _resolve(each.done, result, version)


class WriteBatch:
    """Rows as they were read, to which mutations are applied one after another in memory."""

    def __init__(self, rows: dict[str, Row], now: datetime) -> None:
        self.changed: set[str] = set()
        self._before = frozenset(rows)
        self._rows = rows
        self._now = now

    def apply(self, mutation: Mutation[T]) -> T | ServiceError:
        """Apply `mutation`; return its result, or the error it is refused with."""
        try:
            outcome = mutation.apply(self._rows, self._now)
        except ServiceError as error:
            return error
        for row in outcome.rows:
            self._rows[row.id] = row
            self.changed.add(row.id)
        for row_id in outcome.deletions:
            del self._rows[row_id]
            self.changed.add(row_id)
        return outcome.result

    def changes(self) -> tuple[list[Row], list[str]]:
        """Return the rows to write and the ids to delete, each by id."""
        rows = [self._rows[row_id] for row_id in sorted(self.changed & self._rows.keys())]
        return rows, sorted(self.changed & self._before - self._rows.keys())


async def retry_conflicts(write: Callable[[], Awaitable[T]]) -> T:
    """Return what `write` returns; retry it on conflicts with other processes.

    Raises:
        OverloadedError: it conflicted too often, or until the caller's deadline.
    """
    try:
        return await retry(write, _is_conflict, attempts=MAX_ATTEMPTS, backoff=BACKOFF)
    except WriteConflictError as error:
        problem = f"other writers keep committing first; gave up after at most {MAX_ATTEMPTS} attempts"
        raise OverloadedError(problem, queue="writes", limit=str(MAX_ATTEMPTS)) from error


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, WriteConflictError)


def _resolve(done: asyncio.Future[CommitResult[Any]], result: Any, version: int) -> None:
    if done.done():
        return
    if isinstance(result, ServiceError):
        done.set_exception(result)
    else:
        done.set_result(CommitResult(result, version))


def _fail(batch: Sequence[_Pending], error: Exception) -> None:
    for each in batch:
        if not each.done.done():
            each.done.set_exception(error)
