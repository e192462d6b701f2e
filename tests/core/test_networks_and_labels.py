from __future__ import annotations

import pytest

from app.core.errors import Invalid
from app.core.labels import check_labels, parse_labels
from app.core.networks import allows, parse_networks


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.1.2.3:4711", True),
        ("::ffff:10.1.2.3", True),
        ("[::ffff:10.1.2.3]:4711", True),
        ("11.1.2.3", False),
        ("2001:db8::1", True),
        ("[2001:db8::1]:4711", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("not an address", False),
    ],
)
def test_only_addresses_of_the_networks_are_allowed(remote: str, allowed: bool) -> None:
    assert allows(("10.0.0.0/8", "2001:db8::/32"), remote) is allowed


def test_no_networks_means_from_anywhere() -> None:
    assert allows((), "192.0.2.1")


def test_networks_have_one_spelling_and_come_once() -> None:
    assert parse_networks(["10.0.0.0/8", " 192.0.2.7 ", "", "10.0.0.0/8"]) == ("10.0.0.0/8", "192.0.2.7/32")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "10.0.0"])
def test_what_is_no_network_is_refused_by_name(network: str) -> None:
    with pytest.raises(Invalid, match=network.replace(".", r"\.")) as refused:
        parse_networks([network])
    assert refused.value.field == "networks"


def test_labels_are_read_as_people_write_them() -> None:
    assert parse_labels(["zone=a", " role = web ", "", "empty="]) == {"zone": "a", "role": "web", "empty": ""}


@pytest.mark.parametrize("text", ["zone", "=a", "zone a=b", "-x=1", "x" * 129 + "=1"])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_labels([text])
    assert refused.value.field == "labels"


def test_labels_are_bounded() -> None:
    with pytest.raises(Invalid):
        check_labels({f"k{number}": "" for number in range(65)})
    with pytest.raises(Invalid):
        check_labels({"zone": "a" * 257})
    with pytest.raises(Invalid):
        check_labels({"zone": "a\x1b[31m"})
