"""Whether this node is healthy: the checks it runs itself, each with a time limit. See docs/checks.md."""

from agent.checks.config import Builtin, ChecksConfig, DiskLimit
from agent.checks.health import run_checks, verdict

__all__ = ["Builtin", "ChecksConfig", "DiskLimit", "run_checks", "verdict"]
