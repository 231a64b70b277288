"""What the documents tell a reader to type: files, subcommands, options, values and targets exist.

Nothing is run; `make demo` and the stories do that.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from overspill.api.crd import RESOURCES
from overspill.api.service import InferenceService
from overspill.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (
    *(".", "docs", "docs/adr", "docs/how-to", "docs/runbooks"),
    *("charts/overspill", "hack/cluster"),
)
DOCUMENTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
VALUES = yaml.safe_load((ROOT / "charts/overspill/values.yaml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
Words = list[str]


def lines(text: str) -> Iterator[str]:
    """Every line of the shell blocks, continued lines joined, and every inline code."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(
        r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )


def commands(path: Path, program: str) -> list[Words]:
    """The arguments with which a document calls a program."""
    found = []
    for line in lines(path.read_text()):
        for part in re.split(r" \| |; | && ", line):
            with_comment = re.match(rf"\s*(?:[A-Z_]+=\S+ )?{program} (.*)", part)
            if with_comment:
                found.append(shlex.split(with_comment[1], comments=True))
    return found


def after(words: Words, option: str) -> list[str]:
    """The values given to an option."""
    return [value for name, value in itertools.pairwise(words) if name == option]


def overspill_fault(words: Words) -> str:
    """What is wrong with a call of `overspill`, "" for nothing."""
    node: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("-"):
            known = {option for param in node.params for option in param.opts}
            if word not in known:
                return f"{word} is no option of {node.name}"
        elif hasattr(node, "commands"):
            if any(choice not in node.commands for choice in word.split("|")):
                return f"{word} is no command"
            node = node.commands[word.split("|")[0]]
    return "" if not hasattr(node, "commands") or words == ["--help"] else "a command is missing"


def has_value(dotted: str) -> bool:
    node: Any = VALUES
    for name in dotted.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_calls_of_overspill_name_commands_and_options_that_exist(path: Path) -> None:
    for words in commands(path, "(?:kubectl )?overspill"):
        assert overspill_fault(words) == "", words


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_helm_installs_a_chart_that_is_there_with_values_that_it_has(path: Path) -> None:
    for words in commands(path, "helm"):
        keys = [re.split(r"=|\[", pair)[0] for pair in after(words, "--set")]
        assert [key for key in keys if not has_value(key)] == []
        if words[0] == "install" and len(words) > 1:
            assert (ROOT / words[2] / "Chart.yaml").exists(), words
            # The default names a registry that does not exist, and the chart refuses it.
            assert "image.registry" in keys, words


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_files_that_commands_read_are_there(path: Path) -> None:
    named = [
        name
        for program in ("kubectl", "docker")
        for words in commands(path, program)
        for name in after(words, "-f")
    ]
    named += [words[-1] for words in commands(path, "sed")]
    named += [words[0] for words in commands(path, "python3?")]
    assert [n for n in named if n != "-" and not (ROOT / n).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_make_has_the_targets(path: Path) -> None:
    for words in commands(path, "make"):
        for target in (w for w in words if re.fullmatch("[a-z][a-z0-9-]*", w)):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_chart_tells_the_next_commands_and_they_exist() -> None:
    notes = (ROOT / "charts/overspill/templates/NOTES.txt").read_text()
    told = re.findall(r"kubectl overspill ([^`\n]*)", re.sub(r"{{.*?}}", "", notes))
    assert [words.split()[0] for words in told] == ["check", "chat", "keys", "uninstall"]
    for words in told:
        assert overspill_fault(shlex.split(words)) == "", words
    (sample,) = re.findall(r"<<YAML\n(.*?)YAML\n", notes, re.DOTALL)
    service = InferenceService.parse(yaml.safe_load(sample.replace("<", "").replace(">", "")))
    assert f"{service.metadata.namespace}/{service.metadata.name}" == shlex.split(told[1])[1]


def test_the_commands_that_our_messages_name_exist() -> None:
    for path in sorted((ROOT / "operator/overspill").rglob("*.py")):
        _, _, code = path.read_text().partition('"""\n')  # after the module's own docstring
        for told in re.findall(r"`(?:kubectl )?overspill ([^`]+)`", code):
            words = shlex.split(re.sub(r"{.*?}", "x", told))
            assert overspill_fault(words) == "", f"{path.relative_to(ROOT)}: {told}"


def test_the_readme_explains_and_talks_to_what_it_applies() -> None:
    readme = ROOT / "README.md"
    sample = yaml.safe_load((ROOT / "manifests/samples/minimal.yaml").read_text())
    talked_to = [words[1] for words in commands(readme, "overspill") if words[0] == "chat"]
    assert set(talked_to) == {sample["metadata"]["name"]}
    explained = [words[1] for words in commands(readme, "kubectl") if words[0] == "explain"]
    assert {e.partition(".")[0] for e in explained} <= {r.short_name for r in RESOURCES}


def test_the_readme_puts_a_model_into_the_sample() -> None:
    """The replacement is that of the README's sed command."""
    (words,) = commands(ROOT / "README.md", "sed")
    _, pattern, replacement, _ = words[0].split("#")
    sample, count = re.subn(pattern, replacement, (ROOT / words[1]).read_text())
    assert count == 1
    assert yaml.safe_load(sample)["spec"]["model"]["uri"] == replacement


def test_the_images_of_the_readme_have_the_tag_that_the_chart_asks_for() -> None:
    chart = yaml.safe_load((ROOT / "charts/overspill/Chart.yaml").read_text())
    tags = re.findall(
        r"-t REGISTRY/(?:\$program|engine-cpu):(\S+)", (ROOT / "README.md").read_text()
    )
    assert tags == [chart["appVersion"]] * 2
