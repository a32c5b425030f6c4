"""What the code cites of docs/wire.md is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[3]
_POINTS = re.compile(r"docs/wire\.md, points? ((?:\d+(?:, | to | and )?)+)")
_POINT = re.compile(r"point (\d+) of docs/wire\.md")
_SECTION = re.compile(r'docs/wire\.md[,(]? \(?(?:section )?"([^"]+)"')


def cited(*patterns: re.Pattern[str]) -> Iterator[str]:
    for folder in ("ors_gym", "tests", "benchmarks"):
        for file in (_ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
            for pattern in patterns:
                yield from pattern.findall(text)


@pytest.fixture(scope="module")
def page() -> str:
    return (_ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


def test_every_point_is_there(page: str) -> None:
    points = {
        int(n) for found in cited(_POINTS, _POINT) for n in re.findall(r"\d+", found)
    }
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", page, flags=re.MULTILINE)]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(points) > 15
    assert points <= {*numbers}


def test_every_section_is_there(page: str) -> None:
    sections = {*cited(_SECTION)}
    assert len(sections) >= 3
    assert sections <= {*re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)}
