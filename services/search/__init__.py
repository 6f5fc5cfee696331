"""The search service: nearest items by vector, exact and filtered, from indexes that follow the store."""
