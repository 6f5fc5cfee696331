"""Calls that look after collections: check, repair, erase, restore, report; ports and values only."""
