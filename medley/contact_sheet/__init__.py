"""Contact sheets: search results as one picture or page."""
