"""Fill a collection and search it: by words, by a picture, by both, with a filter.

Start the services first (`medley up`), then run `python examples/quickstart.py [HOST:PORT]`.
"""

import sys

from medley import Client, NewItem
from medley.demo.catalog import generate_catalog


def main(server: str) -> None:
    """Run the tour against `server`."""
    with Client(server) as client:
        client.create_collection("quickstart")
        products = list(generate_catalog(60))
        items = (NewItem(each.id, each.description, each.picture, each.metadata) for each in products)
        refused = [result for result in client.ingest("quickstart", items) if not result.ok]
        print(f"{client.count('quickstart')} items, {len(refused)} refused")

        picture = products[0].picture
        searches = {
            "words": client.search("quickstart", text="a red striped dress", top_k=3),
            "picture": client.search("quickstart", image=picture, top_k=3),
            "both": client.search("quickstart", text="striped", image=picture, weights={"image": 2}, top_k=3),
            "filter": client.search("quickstart", text="a gift", where={"price": {"$lt": 20}}, top_k=3),
        }
        for name, hits in searches.items():
            print(f"{name:8}", " | ".join(hit.item.text or hit.id for hit in hits))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50050")
