"""REST v1, a blueprint per noun, over the same services as the pages."""
