"""Proof that rows, media, vectors and indexes agree, joined from what the services say; and repairs on request."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias, cast

from medley.v1 import check_pb2, collection_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.errors import ArgumentError, CollectionNotFoundError, CorruptError, NotFoundError, ServiceError
from services.common.neighbours import call, stream
from services.common.paging import MAX_PAGE_SIZE
from services.common.retry import is_transient, retry
from services.gateway.embedder import Embedder
from services.gateway.index_check import Compared, Held, IndexCheck
from services.gateway.mender import Mender, not_mended
from services.gateway.stubs import Neighbours

RETRY_SECONDS = 5.0
Parts: TypeAlias = AsyncGenerator[check_pb2.Finding | pb.CheckProgress, None]


class Checker:
    """Checks collections, one after the other. A service that does not answer is told of as not checked."""

    def __init__(self, neighbours: Neighbours, embedder: Embedder, mender: Mender[Any]) -> None:
        self._store = neighbours.store
        self._embedder = embedder
        self._mender = mender
        self._index = IndexCheck(neighbours.store, neighbours.search)

    async def check(self, request: pb.CheckCollectionsRequest) -> Parts:
        """Yield what is wrong, repaired where `request` asks for it, and how far the check has come.

        Raises:
            ArgumentError: references are to be dropped and nothing repaired.
            CollectionNotFoundError: the collection named is not there.
            ServiceUnavailableError: the store does not answer.
        """
        if request.drop_lost_media and not request.repair:
            raise ArgumentError("drop_lost_media", True, "not without repair")
        if request.collection:
            async with aclosing(self._collection(request.collection, request)) as parts:
                async for part in parts:
                    yield part
            return
        async with aclosing(self._everything(request)) as parts:
            async for part in parts:
                yield part

    async def _everything(self, request: pb.CheckCollectionsRequest) -> Parts:
        for name in await self._names():
            try:
                async with aclosing(self._collection(name, request)) as parts:
                    async for part in parts:
                        yield part
            except NotFoundError as error:
                if error.reason != CollectionNotFoundError.reason:
                    raise  # else dropped since it was listed
        asked = store_pb.CheckMediaRequest(remove=request.repair)
        async for message in stream("store", self._store.CheckMedia, asked):
            yield message.finding
        yield pb.CheckProgress(done=True)

    async def _names(self) -> list[str]:
        names, token = list[str](), ""
        while True:
            asked = store_pb.ListTablesRequest(page_size=MAX_PAGE_SIZE, page_token=token)
            page: store_pb.ListTablesResponse = await call("store", self._store.ListTables, asked)
            names += [collection.name for collection in page.collections]
            if not (token := page.next_page_token):
                return names

    async def _collection(self, name: str, request: pb.CheckCollectionsRequest) -> Parts:
        answer: store_pb.GetTableResponse = await call(
            "store", self._store.GetTable, store_pb.GetTableRequest(name=name)
        )
        held = Held(answer.collection, answer.collection.version)
        progress = pb.CheckProgress(collection=name)
        for finding in await self._passports(answer.collection):
            yield finding
        try:
            async with aclosing(self._rows(held, progress, request)) as parts:
                async for part in parts:
                    yield part
        except CorruptError as error:
            yield _lost(name, error)
            return
        compared = await self._compared(held, repair=request.repair)
        for finding in compared.findings:
            yield finding
        progress.vectors_compared = compared.vectors
        progress.done = True
        yield progress

    async def _passports(self, collection: collection_pb2.Collection) -> list[check_pb2.Finding]:
        """Compare each space's passport with that of its model as it is now."""
        findings = []
        for space in collection.spaces:
            if not space.model:
                continue
            try:
                passport = (await self._embedder.model(space.model)).passport
            except NotFoundError:
                passport = ""
            except ServiceError as error:
                findings.append(_not_checked(collection.name, f"the passport of {space.name}", error))
                continue
            if passport != space.passport:
                findings.append(_foreign(collection.name, space, passport))
        return findings

    async def _rows(self, held: Held, progress: pb.CheckProgress, request: pb.CheckCollectionsRequest) -> Parts:
        asked = store_pb.CheckTableRequest(
            collection=held.collection.name,
            media=request.media,
            vector_sample=request.vector_sample,
            remove_damaged_media=request.drop_lost_media,
        )
        async with aclosing(cast(Any, stream("store", self._store.CheckTable, asked))) as messages:
            async for message in messages:
                match message.WhichOneof("part"):
                    case "table":
                        held.version = progress.version = message.table.version
                        progress.rows_total = message.table.rows
                    case "rows":
                        held.spaces.update(zip(message.rows.ids, message.rows.spaces, strict=True))
                        progress.rows += len(message.rows.ids)
                        yield _copy(progress)
                    case "vectors":
                        held.sample.append(message.vectors)
                    case "media":
                        progress.media.CopyFrom(message.media)
                        yield _copy(progress)
                    case "finding":
                        yield await self._mended(message.finding, request)

    async def _mended(self, finding: check_pb2.Finding, request: pb.CheckCollectionsRequest) -> check_pb2.Finding:
        """Return a finding about a row with what became of its repair."""
        if not request.repair:
            return finding
        repair = self._repair(finding, drop=request.drop_lost_media)
        if repair is None:
            return _with(finding, because="what refers to lost media is dropped only on request")
        try:
            await repair()
        except Exception as error:
            return _with(finding, because=not_mended(error))
        return _with(finding)

    def _repair(self, finding: check_pb2.Finding, *, drop: bool) -> Callable[[], Awaitable[None]] | None:
        match finding.kind:
            case check_pb2.FINDING_KIND_VECTOR_INVALID | check_pb2.FINDING_KIND_VECTOR_MISSING:
                return partial(self._mender.make_vector, finding.collection, finding.id, finding.space)
            case check_pb2.FINDING_KIND_SPACES_DIFFER:
                return partial(self._mender.write_again, finding.collection, finding.id)
            case _:
                dropping = partial(self._mender.drop_media, finding.collection, finding.id, finding.sha256)
                return dropping if drop else None

    async def _compared(self, held: Held, *, repair: bool) -> Compared:
        """Compare the index with what is held; with `repair` build it anew where it differs, and compare again."""
        try:
            compared = await retry(partial(self._index.compare, held), is_transient, seconds=RETRY_SECONDS)
        except ServiceError as error:
            return Compared([_not_checked(held.collection.name, "the index", error)])
        if not repair or not compared.findings:
            return compared
        try:
            await self._index.rebuild(held.collection.name)
            left = await retry(partial(self._index.compare, held), is_transient, seconds=RETRY_SECONDS)
        except ServiceError as error:
            return Compared([_with(finding, because=str(error)) for finding in compared.findings], compared.vectors)
        return Compared(_rebuilt(compared.findings, left.findings), left.vectors)


def _rebuilt(before: Sequence[check_pb2.Finding], after: Sequence[check_pb2.Finding]) -> list[check_pb2.Finding]:
    """Return the findings `before` as repaired, but for those that are there `after` the index was built anew."""
    left = {(finding.kind, finding.id, finding.space) for finding in after}
    repaired = [_with(finding) for finding in before if (finding.kind, finding.id, finding.space) not in left]
    return repaired + [_with(finding, because="it is the same in an index built anew") for finding in after]


def _foreign(collection: str, space: collection_pb2.Space, passport: str) -> check_pb2.Finding:
    made = f"makes vectors of passport {passport!r}" if passport else "is not in the catalogue"
    return check_pb2.Finding(
        kind=check_pb2.FINDING_KIND_PASSPORT_FOREIGN,
        collection=collection,
        space=space.name,
        detail=f"{space.model} {made}, the space has vectors of {space.passport!r}",
        not_repaired_because="back the collection up, and restore it embedding anew",
    )


def _lost(collection: str, error: CorruptError) -> check_pb2.Finding:
    return check_pb2.Finding(
        kind=check_pb2.FINDING_KIND_ROWS_LOST,
        collection=collection,
        detail=str(error),
        not_repaired_because="the rows are nowhere else: restore a backup",
    )


def _not_checked(collection: str, what: str, error: ServiceError) -> check_pb2.Finding:
    return check_pb2.Finding(
        kind=check_pb2.FINDING_KIND_NOT_CHECKED, collection=collection, detail=f"{what} was not checked: {error}"
    )


def _with(finding: check_pb2.Finding, because: str = "") -> check_pb2.Finding:
    """Return `finding` as repaired, or with the reason `because` of which it was not."""
    told = check_pb2.Finding()
    told.CopyFrom(finding)
    told.repaired, told.not_repaired_because = not because, because
    return told


def _copy(progress: pb.CheckProgress) -> pb.CheckProgress:
    """Return what does not change any more."""
    copied = pb.CheckProgress()
    copied.CopyFrom(progress)
    return copied
