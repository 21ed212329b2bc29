"""The walls of the house: imports run downward, nothing imports the package root, no file grows too long."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "automc"
ROOMS = ["network", "compression", "compiler", "cost", "environment", "search", "analysis", "commands"]
SHARED = ["errors", "reporting", "files", "choices", "schema", "reading", "catalog"]  # each may import those before it
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "automc"}


def floor(parts: list[str]) -> int:
    """Shared files stand below all rooms; the package's own door and the command line above them."""
    if parts[0] in ROOMS:
        return len(SHARED) + ROOMS.index(parts[0])
    if parts[0] in SHARED:
        return SHARED.index(parts[0])
    return len(SHARED) + len(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    here = floor(list(path.relative_to(PACKAGE).with_suffix("").parts))
    for name in imports_of(path):
        parts = name.split(".")[1:]
        is_room = len(parts) > 0 and (parts[0] in ROOMS or parts[0] in SHARED)
        assert is_room or here == len(SHARED) + len(ROOMS), f"{path} imports the package root: {name}"
        assert floor(parts) <= here, f"{path} imports upward: {name}"


def test_no_circles():
    modules = {".".join(["automc", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in FILES}
    graph = {
        name: {known for target in imports_of(path) for known in modules if target in (known, *_members(known, target))}
        for name, path in modules.items()
    }
    finished: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in finished:
            for target in graph[name] - {name}:
                visit(target, (*trail, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def _members(module: str, target: str) -> list[str]:
    """`from module import member` names `module.member`."""
    return [target] if target.rpartition(".")[0] == module else []


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_data_folders_hold_no_code():
    root = PACKAGE.parent
    for folder in ("envs", "search_spaces", "latency_tables", "experiments"):
        assert not list((root / folder).rglob("*.py")), f"{folder}/ answers questions in plain files"
