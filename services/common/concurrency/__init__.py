"""Limits, batches, executors, retries and tasks."""
