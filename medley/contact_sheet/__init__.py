"""Contact sheets: found media as one picture or page."""
