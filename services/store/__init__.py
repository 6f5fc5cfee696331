"""The store service: rows, media and their changes, durable."""
