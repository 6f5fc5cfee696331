"""Ports in memory, for tests: no setting selects them."""
