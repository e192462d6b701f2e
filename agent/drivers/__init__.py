"""One file per OS update tool."""
