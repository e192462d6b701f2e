"""Flask pages, a blueprint per noun."""
