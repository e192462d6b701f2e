"""What ends an agent command: one clear line, one exit code."""

from __future__ import annotations


class AgentError(Exception):
    """The agent cannot go on as it is. Fields: text (what is wrong and what to do, one line)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ConfigError(AgentError):
    """The configuration is wrong; the text names the file and the key."""


class StateError(AgentError):
    """The state folder cannot be used; the text names the file."""


class JoinError(AgentError):
    """The join was refused or could not be tried; says whether the token was spent."""
