"""One function per operator intention: gather, decide (core), apply with its audit entry."""
