from __future__ import annotations

import pytest

from app.core.errors import Invalid
from app.core.image_header import ImageHeader, read_header
from app.core.image_identity import MAX_IMAGE_BYTES, check_digest, check_size, image_name
from app.core.image_match import Platform, canonical_arch, mismatch


def test_an_image_for_another_architecture_is_refused_by_name() -> None:
    said = mismatch("4152.2.0", Platform("flatcar", "arm64"), "web-03", Platform("flatcar", "amd64"))
    assert said == "4152.2.0 is built for flatcar arm64; web-03 is flatcar amd64."


def test_an_image_for_another_os_is_refused_by_name() -> None:
    said = mismatch("40", Platform("fedora", "amd64"), "web-03", Platform("flatcar", "amd64"))
    assert said == "40 is built for fedora amd64; web-03 is flatcar amd64."


def test_a_node_that_never_said_what_it_is_gets_nothing() -> None:
    said = mismatch("40", Platform("fedora", "amd64"), "web-03", Platform("", ""))
    assert said == "40 is built for fedora amd64; web-03 is an unknown OS of unknown architecture."


@pytest.mark.parametrize(("said", "meant"), [("x86_64", "amd64"), ("AARCH64", "arm64"), ("riscv64", "riscv64")])
def test_architectures_have_one_spelling(said: str, meant: str) -> None:
    assert canonical_arch(said) == meant
    assert mismatch("1", Platform("demo", said), "n", Platform("demo", meant)) is None


def test_names_are_checked_and_spelled_in_one_way() -> None:
    assert str(image_name(" flatcar ", "x86_64", "4152.2.0")) == "flatcar 4152.2.0 for amd64"


@pytest.mark.parametrize(
    ("field", "os", "arch", "version"),
    [
        ("os", "", "amd64", "1"),
        ("os", "Flat Car", "amd64", "1"),
        ("os", "flat\ncar", "amd64", "1"),
        ("arch", "flatcar", "", "1"),
        ("arch", "flatcar", "amd 64", "1"),
        ("arch", "flatcar", "amd\n64", "1"),
        ("version", "flatcar", "amd64", ""),
        ("version", "flatcar", "amd64", "../../etc/passwd"),
        ("version", "flatcar", "amd64", "1\n2"),
        ("version", "flatcar", "amd64", "1" * 129),
    ],
)
def test_a_bad_name_is_refused_at_its_field(field: str, os: str, arch: str, version: str) -> None:
    with pytest.raises(Invalid) as refused:
        image_name(os, arch, version)
    assert refused.value.field == field


def test_a_digest_is_taken_with_and_without_its_prefix() -> None:
    assert check_digest("AB" * 32) == check_digest("sha256:" + "ab" * 32)


@pytest.mark.parametrize("digest", ["", "sha256:", "ab" * 31, "sha512:" + "ab" * 32, "../" + "ab" * 32, "zz" * 32])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_digest(digest)
    assert refused.value.field == "digest"


@pytest.mark.parametrize("size", [0, -1, MAX_IMAGE_BYTES + 1])
def test_a_size_that_no_image_has_is_refused(size: int) -> None:
    with pytest.raises(Invalid):
        check_size(size)


def test_the_header_of_an_image_says_its_names() -> None:
    start = b'# a comment\nID=demo\nNAME="Demo OS"\n\nVERSION_ID="1.2.0"\nARCHITECTURE=amd64\n--\n\xff\xfe payload'
    assert read_header(start) == ImageHeader("demo", "amd64", "1.2.0")


@pytest.mark.parametrize(
    "start",
    [b"", b"\x7fELF\x02", b"hsqs\xff\xff\n--\n", b"ID=demo\nno end", b"not an assignment\n--\n", b'ID="open\n--\n'],
)
def test_an_image_without_header_says_nothing(start: bytes) -> None:
    assert read_header(start) == ImageHeader()
