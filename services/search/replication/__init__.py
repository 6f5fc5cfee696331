"""Following the store's changes, one replica a collection."""
