"""From items to rows: validate, embed, write."""
