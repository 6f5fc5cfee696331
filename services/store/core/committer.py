"""Writes to one table, one commit after another, each for all that waits."""

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
from services.store.core.rows import NOTHING, Parts, Row
from services.store.core.table import Table, WriteConflictError

MAX_ATTEMPTS = 20
BACKOFF = Backoff(first=0.02, longest=0.4)
T = TypeVar("T")


class Mutation(Protocol[T]):
    """A write: which rows it looks at, and what it does given those."""

    @property
    def ids(self) -> Sequence[str]:
        """The rows it looks at, and the only ones it may change."""
        ...

    @property
    def parts(self) -> Parts:
        """The parts of those rows it looks at."""
        ...

    def decide(self, current: Rows, now: datetime) -> MutationResult[T]:
        """Return what to do given the `current` rows; may be asked again with others. A `ServiceError` refuses it."""
        ...


@dataclass(frozen=True, slots=True)
class Committed(Generic[T]):
    """The answer to a write, and the commit that holds it."""

    answer: T
    version: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    plan: Mutation[Any]
    done: asyncio.Future[Committed[Any]]


class Committer:
    """Commits plans in the order they come. What comes during a commit waits and shares the next one.

    `max_rows` may wait; what comes on top of that is refused. A single plan may have more.
    """

    def __init__(self, table: Table, *, max_rows: int, clock: Callable[[], datetime]) -> None:
        self._table = table
        self._max_rows = max_rows
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[int]] = set()

    async def commit(self, plan: Mutation[T]) -> Committed[T]:
        """Carry out `plan`; the answer comes once it is durable.

        A caller that is cancelled meanwhile takes nothing back.

        Raises:
            OverloadedError: too many rows wait, or other processes keep coming first.
            ServiceError: why the plan was refused.
        """
        waiting = sum(len(each.plan.ids) for each in self._waiting)
        if waiting and waiting + len(plan.ids) > self._max_rows:
            raise OverloadedError(f"{waiting} rows wait to be written", queue="writes", limit=str(self._max_rows))
        done: asyncio.Future[Committed[T]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(plan, done))
        if self._work is None or self._work.done():
            # In a context of its own: it commits for others too, whose deadlines are not this caller's.
            self._work = asyncio.create_task(self._run(), context=Context())
        return await done

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Change how a space is indexed, whatever rows are written meanwhile; return the newest commit once durable.

        A caller that is cancelled meanwhile takes nothing back.

        Raises:
            SpaceNotFoundError: there is no such space.
            OverloadedError: other processes keep coming first.
        """
        change = asyncio.create_task(retry_conflicts(partial(self._table.configure, space, index)), context=Context())
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)
        return await asyncio.shield(change)

    async def drained(self) -> None:
        """Wait until nothing waits."""
        if self._work is not None:
            await self._work
        await asyncio.gather(*self._changes, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await retry_conflicts(partial(self._commit, batch))
            except Exception as error:
                _refuse(batch, error)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        ids = {row_id for each in batch for row_id in each.plan.ids}
        found = await self._table.get(ids, NOTHING.union(*(each.plan.parts for each in batch)))
        ledger = WriteBatch(dict(found.rows), self._clock())
        answers = [ledger.enter(each.plan) for each in batch]
        version = await self._table.write(*ledger.changes(), found.version) if ledger.changed else found.version
        for each, answer in zip(batch, answers, strict=True):
            _settle(each.done, answer, version)


class WriteBatch:
    """Mutations applied one after the other, in memory, to rows as they were read."""

    def __init__(self, rows: dict[str, Row], now: datetime) -> None:
        self.changed: set[str] = set()
        self._before = frozenset(rows)
        self._rows = rows
        self._now = now

    def enter(self, plan: Mutation[T]) -> T | ServiceError:
        """Apply `plan` and return its answer, or the error for which it changes nothing."""
        try:
            decision = plan.decide(self._rows, self._now)
        except ServiceError as error:
            return error
        for row in decision.rows:
            self._rows[row.id] = row
            self.changed.add(row.id)
        for row_id in decision.deletions:
            del self._rows[row_id]
            self.changed.add(row_id)
        return decision.answer

    def changes(self) -> tuple[list[Row], list[str]]:
        """Return the rows to write and the ids to delete, each by id."""
        rows = [self._rows[row_id] for row_id in sorted(self.changed & self._rows.keys())]
        return rows, sorted(self.changed & self._before - self._rows.keys())


async def retry_conflicts(write: Callable[[], Awaitable[T]]) -> T:
    """Return what `write` returns, repeated while other processes commit first.

    Raises:
        OverloadedError: they came first too often, or until the caller's deadline.
    """
    try:
        return await retry(write, _is_conflict, attempts=MAX_ATTEMPTS, backoff=BACKOFF)
    except WriteConflictError as error:
        problem = f"other writers came first, {MAX_ATTEMPTS} times at most are tried"
        raise OverloadedError(problem, queue="writes", limit=str(MAX_ATTEMPTS)) from error


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, WriteConflictError)


def _settle(done: asyncio.Future[Committed[Any]], answer: Any, version: int) -> None:
    if done.done():
        return
    if isinstance(answer, ServiceError):
        done.set_exception(answer)
    else:
        done.set_result(Committed(answer, version))


def _refuse(batch: Sequence[_Waiting], error: Exception) -> None:
    for each in batch:
        if not each.done.done():
            each.done.set_exception(error)
