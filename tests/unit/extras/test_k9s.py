"""The files for k9s: their form, and that each column shows a field that there is.

Form: https://github.com/derailed/k9s/tree/master/internal/config/json/schemas (plugins, views).
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "extras/k9s"
PLUGINS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "plugins.yaml").read_text())[
    "plugins"
]
VIEWS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "views.yaml").read_text())["views"]
COLUMN = re.compile(r"(?P<name>[^:|]+)(?::(?P<path>\.[^|]+))?(?:\|(?P<flags>[RWNTHSL]+))?")
VARIABLES = {"NAMESPACE", "NAME", "CONTEXT", "KUBECONFIG"}  # https://k9scli.io/topics/plugins/
BUILT_IN = {"NAME", "NAMESPACE", "AGE"}


def definition(plural: str) -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load((ROOT / f"crds/{plural}.yaml").read_text())
    return crd


def field(schema: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The schema of the field that a JSON path names, None when there is none."""
    for name, index in re.findall(r"\.(\w+)(\[[^\]]*\])?", re.sub(r"\(@\.[^)]*\)", "", path)):
        found = schema.get("properties", {}).get(name)
        if found is None:
            return None
        schema = found["items"] if index else found
    return schema


@pytest.mark.parametrize("gvr", VIEWS)
def test_every_column_shows_a_field_that_there_is(gvr: str) -> None:
    group, version, plural = gvr.split("/")
    crd = definition(plural)
    (served,) = crd["spec"]["versions"]
    assert (group, version) == (crd["spec"]["group"], served["name"])
    assert set(VIEWS[gvr]) == {"columns", "sortColumn"}
    names = []
    for column in VIEWS[gvr]["columns"]:
        parts = COLUMN.fullmatch(column)
        assert parts, column
        names.append(parts["name"])
        if parts["path"] is None:
            assert parts["name"] in BUILT_IN
        else:
            assert field(served["schema"]["openAPIV3Schema"], parts["path"]), column
    assert len(set(names)) == len(names)
    assert VIEWS[gvr]["sortColumn"].split(":")[0] in names


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_is_whole_and_names_our_kinds(name: str) -> None:
    plugin = PLUGINS[name]
    assert set(plugin) == {"shortCut", "description", "scopes", "command", "background", "args"}
    assert {v.split("/")[2] for v in VIEWS} >= set(plugin["scopes"])
    assert all(isinstance(a, str) for a in plugin["args"])
    # k9s refuses a plugin with a variable that it does not know, $1 too.
    used = [set(re.findall(r"\$(\w+)", argument)) for argument in plugin["args"]]
    assert set().union(*used) <= VARIABLES
    # It fills them in as text: none may become part of a shell's program.
    if plugin["command"] == "sh":
        assert plugin["args"][0] == "-c"
        assert not used[1]


def test_no_two_plugins_share_a_key() -> None:
    keys = [plugin["shortCut"] for plugin in PLUGINS.values()]
    assert len(set(keys)) == len(keys)
