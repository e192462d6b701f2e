"""Labels as people write them: `zone=a`, one a line or separated by commas. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from app.core.errors import Invalid
from app.core.texts import INDEXED_BYTES, fits_index

LABELS = 64
VALUE_CHARS = 256
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
"""As the wire allows it."""


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels of `key=value` texts; Invalid names the one that is none."""
    labels: dict[str, str] = {}
    for text in texts:
        if not text.strip():
            continue
        key, equals, value = text.strip().partition("=")
        if not equals:
            raise Invalid("labels", f"“{text.strip()}” is no label such as zone=a.")
        labels[key.strip()] = value.strip()
    return check_labels(labels)


def is_label_key(key: str) -> bool:
    return _KEY.match(key) is not None


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A copy of `labels`, when each can be stored, shown and filtered by; Invalid otherwise."""
    if len(labels) > LABELS:
        raise Invalid("labels", f"A node has at most {LABELS} labels; these are {len(labels)}.")
    for key, value in labels.items():
        if not _KEY.match(key):
            raise Invalid("labels", f"“{key}” is no label key: letters, digits and . _ / - after a letter or digit.")
        if len(value) > VALUE_CHARS or not fits_index(value) or not value.isprintable():
            text = f"The value of label “{key}” must be printable, at most {VALUE_CHARS} characters"
            raise Invalid("labels", f"{text} and {INDEXED_BYTES} bytes.")
    return dict(labels)
