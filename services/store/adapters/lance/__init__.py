"""Tables in Lance."""
