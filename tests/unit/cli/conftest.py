from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Command, World, kubeconfig, serving


@pytest.fixture
def world() -> Iterator[World]:
    with serving(World()) as running:
        yield running


@pytest.fixture
def overspill(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, world.port)))
    monkeypatch.delenv("OVERSPILL_API_KEY", raising=False)
    return Command(monkeypatch, capsys)
