"""What no code of ours may do (S8, S15): run text, unpickle, fill templates without a sandbox.

Ruff finds most of it (S102, S301, S302, S307, S506, S602, S604, S605, S701; see pyproject.toml).
Here is what it has no rule for, and that nobody has switched those rules off.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = sorted(ROOT.glob("operator/**/*.py"))
FILES = sorted(
    p for folder in ("operator", "hack", "bench") for p in ROOT.glob(f"{folder}/**/*.py")
)
TESTS = sorted(p for folder in ("tests", "e2e") for p in ROOT.glob(f"{folder}/**/*.py"))
NEVER_OFF = {"S102", "S301", "S302", "S307", "S506", "S602", "S604", "S605", "S612", "S701"}

RUN_TEXT = {"eval", "exec", "compile", "__import__"}
UNPICKLE = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
YAML_LOADS = {"load", "load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_Loader"}  # the last: one of these two, templating.py
OF = {
    "builtins": RUN_TEXT,
    "jinja2": {"Environment", "Template", "NativeEnvironment"},  # the sandbox is in jinja2.sandbox
    "os": {"system", "popen"},
    "yaml": {"unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
    | {"UnsafeLoader", "FullLoader", "Loader"},
}
# Where a module is loaded by its path: the golden files' generator, from this checkout.
LOADS_MODULES = {"hack/generate.py"}


def faults(source: str) -> list[str]:
    """Return what a file may not do, each with its line."""
    tree = ast.parse(source)
    return sorted(f"{line}: {what}" for node in ast.walk(tree) for line, what in _faults(node))


def _faults(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import() | ast.ImportFrom():
            yield from ((node.lineno, what) for what in _imports(node))
        case ast.Call():
            yield from ((node.lineno, what) for what in _calls(node))
        case ast.Attribute(value=ast.Name(id=owner), attr=attr) if attr in OF.get(owner, ()):
            yield node.lineno, f"{owner}.{attr}"
        case ast.Attribute(attr="exec_module" | "load_module" | "import_module"):
            yield node.lineno, "a module chosen while running"
        case ast.keyword(arg="shell", value=value) if ast.unparse(value) != "False":
            yield value.lineno, "shell="


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (n.name for n in node.names if _root(n.name) in UNPICKLE)
        return
    module = _root(node.module or "")
    if module in UNPICKLE:
        yield module
    names = {n.name for n in node.names}
    yield from (f"{module}.{name}" for name in names & OF.get(module, set()))
    if module == "yaml" and names & YAML_LOADS:
        yield "yaml.load under another name"


def _calls(node: ast.Call) -> Iterator[str]:
    match node.func:
        case ast.Name(id=name) if name in RUN_TEXT:
            yield f"{name}()"
        case ast.Attribute(value=ast.Name(id="yaml"), attr=attr) if attr in YAML_LOADS:
            loaders = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "Loader")]
            if not {ast.unparse(loader).rpartition(".")[2] for loader in loaders} & SAFE_LOADERS:
                yield f"yaml.{attr} without a safe loader"


def _root(module: str) -> str:
    return module.partition(".")[0]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_nothing_runs_text_or_unpickles() -> None:
    found = {name(path): faults(path.read_text()) for path in FILES}
    for path in LOADS_MODULES:
        found[path] = [fault for fault in found[path] if "module chosen" not in fault]
    assert {path: what for path, what in found.items() if what} == {}


def test_nothing_hangs_on_an_assert() -> None:
    """python -O drops them: https://nvd.nist.gov/vuln/detail/CVE-2026-41523"""
    for path in PACKAGE:
        asserts = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)]
        assert not asserts, name(path)


BAD = [
    "eval('1')",
    "exec(text)",
    "compile(text, '', 'exec')",
    "__import__(name)",
    "builtins.eval",
    "import pickle",
    "import pickle as p",
    "from marshal import loads",
    "import shelve",
    "from joblib import load",
    "from jinja2 import Environment",
    "from jinja2.nativetypes import NativeEnvironment",
    "jinja2.Template(text)",
    "yaml.load(text)",
    "yaml.load(text, Loader=yaml.Loader)",
    "yaml.load_all(text, yaml.FullLoader)",
    "yaml.unsafe_load(text)",
    "from yaml import load",
    "subprocess.run(text, shell=True)",
    "subprocess.run(text, shell=flag)",
    "os.system(text)",
    "importlib.import_module(name)",
    "spec.loader.exec_module(module)",
]


@pytest.mark.parametrize("source", BAD)
def test_each_of_these_is_found(source: str) -> None:
    assert faults(source)


def test_good_code_is_left_alone() -> None:
    good = (
        "re.compile('a')\nyaml.load(t, Loader=yaml.CSafeLoader)\nmodel.eval()\nsubprocess.run([a])"
    )
    assert faults(good) == []


def test_ruffs_rules_are_on_everywhere() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    off = {"pyproject": set(lint["ignore"]), **lint["per-file-ignores"]}
    for where, codes in off.items():
        too_much = [c for c in codes if any(never.startswith(c) for never in NEVER_OFF)]
        assert not too_much, where


def test_no_line_switches_them_off() -> None:
    for line in (line for p in [*FILES, *TESTS] for line in p.read_text().splitlines()):
        for codes in re.findall(r"#\s*noqa:\s*([A-Z0-9, ]+)", line):
            assert not NEVER_OFF & set(re.findall(r"[A-Z]+[0-9]+", codes)), line
        assert not re.search(r"#\s*(ruff|flake8):\s*noqa", line), line
