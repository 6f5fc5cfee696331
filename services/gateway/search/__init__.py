"""From a query to one ranked answer: plan, fuse, fetch."""
