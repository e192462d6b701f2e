"""The one error tree: fields, worded once, mapped once to HTTP, close codes and exit codes."""

from __future__ import annotations


class TwinrootError(Exception):
    """Base. Fields: code (stable, for programs), text (what happened, what changed, what to do next)."""

    code = "error"
    http_status = 500

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NotFound(TwinrootError):
    """Fields: noun, id."""

    code = "not-found"
    http_status = 404

    def __init__(self, noun: str, id: str) -> None:
        super().__init__(f"There is no {noun} “{id}”.")
        self.noun = noun
        self.id = id


class Invalid(TwinrootError):
    """Input that cannot be used. Fields: field (name of the offending input)."""

    code = "invalid"
    http_status = 422

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class NotPossible(TwinrootError):
    """The wish is clear, the state forbids it now; nothing was changed. Fields: code (which rule)."""

    http_status = 409

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unauthenticated(TwinrootError):
    code = "unauthenticated"
    http_status = 401


class Forbidden(TwinrootError):
    code = "forbidden"
    http_status = 403


class TooLarge(TwinrootError):
    code = "too-large"
    http_status = 413


class NoSpace(TwinrootError):
    """The server's disk is full; nothing was stored."""

    code = "no-space"
    http_status = 507


class Misconfigured(TwinrootError):
    """A setting is wrong; stops the start. Fields: variable."""

    code = "misconfigured"

    def __init__(self, variable: str, text: str) -> None:
        super().__init__(f"{variable}: {text}")
        self.variable = variable
