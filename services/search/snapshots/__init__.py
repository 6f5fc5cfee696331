"""Indexes saved outside the process, so that a restart is short."""
