"""What the documents say exists: links, metrics, flags, commands."""

import re
from pathlib import Path

import pytest
from support.processes import REPOSITORY

from exporter import catalog
from exporter.config import COMMANDS, OPTIONS

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
MAKEFILE = (REPOSITORY / "Makefile").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_that_are_named_are_in_the_catalogue(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\b(?:gen_ai_server|inference_exporter|inference_engine)_[a-z_]+", text))
    bases = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in named}
    assert bases <= catalog.BY_NAME.keys() | {"inference_exporter_"}, bases - catalog.BY_NAME.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_commands_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    ours = "\n".join(line for line in text.splitlines() if "pip " not in line)
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z.-]+)", ours))
    assert flags <= {option.name for option in OPTIONS} | {"config", "check"}, flags
    for command in re.findall(r"inference-exporter ([a-z]+)\b", ours):
        assert command in set(COMMANDS), command
    for target in re.findall(r"(?:`|^)make ([a-z][a-z-]+)", ours, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_readme_begins_with_the_two_commands() -> None:
    lines = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line]
    assert [line.split("#")[0].strip() for line in lines[2:4]] == ["make demo", "make test"]
