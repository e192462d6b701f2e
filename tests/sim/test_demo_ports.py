"""Where the demo listens: as told, else where everybody looks, and only on this machine."""

from __future__ import annotations

import pytest

from sim.demo import demo_port
from sim.local import LocalError, free_port


def test_the_demo_listens_where_it_is_told() -> None:
    assert demo_port("TWINROOT_HTTP", {"TWINROOT_HTTP": "127.0.0.1:18080"}, 8080) == 18080


def test_untold_it_takes_the_usual_port_where_that_is_free() -> None:
    usual = free_port()
    assert demo_port("TWINROOT_HTTP", {}, usual) == usual


@pytest.mark.parametrize("address", ["0.0.0.0:80", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000", "80"])
def test_an_address_beyond_this_machine_is_refused_by_name(address: str) -> None:
    with pytest.raises(LocalError, match=f"TWINROOT_HTTP={address}: the demo listens"):
        demo_port("TWINROOT_HTTP", {"TWINROOT_HTTP": address}, 8080)
