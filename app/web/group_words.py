"""How the fields of a group's policy are called on its page and in its form, in the order of an update. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyField:
    """One field as people meet it."""

    name: str
    """As in core.policy_text."""
    label: str
    hint: str
    lines: int = 1
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    fields: tuple[PolicyField, ...]


_YES_NO = ("yes", "no")

SECTIONS = (
    Section(
        "What starts a rollout",
        (
            PolicyField("follow", "When the channel moves", "draft: a person starts it", choices=("draft", "at-once")),
            PolicyField("minimum_age_s", "Minimum age of an image", "such as 2d; 0s: none"),
        ),
    ),
    Section(
        "How many at once",
        (
            PolicyField("canaries", "Canaries", "a number of nodes, or a share such as 5%"),
            PolicyField("canary_soak_s", "Then the others wait", "after the last canary has soaked"),
            PolicyField("max_unavailable", "Most missing at once", "whatever the cause: a number, or a share"),
            PolicyField("domain_label", "Label of the failure domain", "such as zone; empty: none"),
            PolicyField("max_per_domain", "Most at once in one domain", "0: no limit of its own"),
            PolicyField("one_domain_after_another", "One domain after another", "", choices=_YES_NO),
        ),
    ),
    Section(
        "When",
        (
            PolicyField(
                "windows",
                "Windows",
                "one a line: mon-fri 22:00-04:00 Europe/Berlin; empty: always open. They bind activation only",
                lines=3,
            ),
        ),
    ),
    Section(
        "What must hold",
        (
            PolicyField("health_gate", "Nodes of the group must be healthy", "", choices=_YES_NO),
            PolicyField("prometheus", "Prometheus queries", "one a line: name, address, query", lines=3),
            PolicyField("failure_limit", "Stop when more failed than", "a number, or a share of those attempted"),
            PolicyField("failure_least", "Failures before a share counts", "where the limit is a share"),
            PolicyField("on_failure", "And then", "", choices=("halt", "roll-back")),
        ),
    ),
    Section(
        "Durations",
        (
            PolicyField("soak_s", "Soak", "how long a confirmed node must stay healthy"),
            PolicyField("confirm_s", "Confirm within", "after the reboot; else the node goes back"),
            PolicyField("keep_way_back_s", "Keep the way back", "after the soak, before the old slot is written"),
            PolicyField("stage_deadline_s", "Stage within", ""),
            PolicyField("reboot_deadline_s", "Back from the reboot within", ""),
            PolicyField("lease_s", "Lease", "from asking to the reboot"),
            PolicyField("absent_after_s", "Absent after", "offline for longer: outside size and budget"),
        ),
    ),
    Section(
        "Staging and draining",
        (
            PolicyField("stage_parallel", "Downloads at once", ""),
            PolicyField("stage_jitter_s", "Spread over", ""),
            PolicyField("bandwidth_bytes_s", "Bandwidth of one node", "bytes a second, such as 10 MiB; 0: no cap"),
            PolicyField("mirrors", "Mirrors", "base addresses, asked first; one a line", lines=2),
            PolicyField("drain", "Drain command", "name of the node's own command; empty: none"),
            PolicyField("drain_s", "Its time limit", ""),
        ),
    ),
)

LABELS = {field.name: field.label for section in SECTIONS for field in section.fields}
"""Field of the policy → what it is called."""
