"""Files as data: strict YAML with line numbers, atomic writes, checksums, and where automc keeps its cache."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from automc.errors import ConfigError, NameNotFound, StorageError

_MAX_DEPTH = 50
_MAX_BYTES = 1_000_000


def cache_directory() -> Path:
    """`$AUTOMC_CACHE`, or `automc` in the user's cache directory."""
    chosen = os.environ.get("AUTOMC_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "automc"


def closest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean '{matches[0]}'?" if matches else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not among the known ones: which is nearest, and all of them."""
    names = list(known)
    return f"{closest(name, names)} (known: {', '.join(names) or 'none'})"


def not_registered(kind: str, name: str, known: Iterable[str]) -> NameNotFound:
    """What to raise for a name that no network, data set, metric or searcher was registered under."""
    return NameNotFound(f"no {kind} '{name}'{suggest(name, known)}; one of your own needs --plugin")


def first_line(documented: object) -> str:
    """The first line of a docstring; empty where there is none."""
    return next(iter((documented.__doc__ or "").strip().splitlines()), "")


def sha256_of(content: bytes | Path) -> str:
    """The hexadecimal SHA-256 of bytes, or of a file's content."""
    if isinstance(content, Path):
        with content.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Refuses NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_atomic(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Replace `path` by `content`; a reader, or a crash, sees the old file or the new one and nothing between.

    The file has the permissions of `mode` that the process's umask leaves: 0o777 for what is to be executed.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, which ends with its process in whatever way; `on_wait` is told where one must wait."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2's plain scalars; refuses duplicate keys, aliases and tags, which YAML 1.1 silently accepts."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.source = source
        self.depth = 0

    def fail(self, node: yaml.Node | yaml.Event, message: str) -> ConfigError:
        mark = node.start_mark
        assert mark is not None
        return ConfigError(f"{self.source}:{mark.line + 1}:{mark.column + 1}: {message}")

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise self.fail(event, "aliases (*name) are not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.fail(event, f"the tag {tag} is not allowed; files are plain data")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.fail(event, f"nested deeper than {_MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        assert node is not None
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(key, "a key must be a plain word")
            if key.value in seen:
                raise self.fail(key, f"the key '{key.value}' appears twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.2 core schema: `no` is a word, `010` is ten, `1e-3` is a number.
_StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_StrictLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def parse_yaml(text: str, source: str) -> Any:
    """The plain data of a YAML text; `source` names it in errors.

    Raises `ConfigError` with line and column for anything that is not plain data.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{source}: larger than {_MAX_BYTES} bytes")
    loader = _StrictLoader(text, source)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{where}: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a whole number may have more digits than Python reads
        raise ConfigError(f"{source}: {error}") from error
    finally:
        loader.dispose()


def yaml_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line (from 1) of every key path in a YAML text that `parse_yaml` has accepted."""
    lines: dict[tuple[str | int, ...], int] = {}

    def visit(node: yaml.Node, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*path, key.value)] = key.start_mark.line + 1
                visit(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                lines[(*path, position)] = value.start_mark.line + 1
                visit(value, (*path, position))

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        visit(root, ())
    return lines
