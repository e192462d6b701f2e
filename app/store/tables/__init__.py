"""The tables, a module for what belongs together; app.store.schema has them all."""
