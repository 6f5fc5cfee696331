from collections.abc import Iterator

import pytest

from services.search.engines.milvus.factory import MilvusCollectionFactory
from tests.contract.collection_index import CollectionIndexContract, MakeCollection
from tests.integration.milvus_endpoint import fresh_options

pytestmark = pytest.mark.milvus


@pytest.fixture
def collections() -> Iterator[MilvusCollectionFactory]:
    made = MilvusCollectionFactory(fresh_options())
    yield made
    made.close()


class TestMilvus(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self, collections: MilvusCollectionFactory) -> MakeCollection:
        return MakeCollection(collections.create)
