"""From contents to vectors: batches, caches, projections."""
