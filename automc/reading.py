"""Plain data and files as the models of `schema.py`, and what is said of a fault: where, what, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from automc.errors import ConfigError, InputError
from automc.files import closest, parse_yaml, suggest, yaml_lines

_QUOTED = re.compile(r"'([^']*)'")

Spec = TypeVar("Spec", bound=BaseModel)
Place = tuple[str | int, ...]  # of a field, from the outermost on
Checks = Mapping[Place, Callable[[], object]]  # of what fields name; each raises an `InputError` where it is not there


def read_spec(
    model: type[Spec],
    path: Path,
    overrides: tuple[str, ...] = (),
    checks: Callable[[Spec], Checks] = lambda spec: {},
) -> Spec:
    """Read a YAML file as `model`, with `overrides` of the form `a.b=value` laid over it, and make its `checks`.

    Raises `ConfigError` with all faults at once: file, line, field, what is allowed, the nearest name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of fields, as in 'name: value'")
    for override in overrides:
        _apply_override(content, override)
    places = {place: f"{path}:{line}" for place, line in yaml_lines(text).items()}
    for override in overrides:
        laid: Place = tuple(override.partition("=")[0].split("."))
        below = {place: line for place, line in places.items() if place[: len(laid)] != laid}
        places = below | {laid: f"override '{override}'"}
    spec = make_spec(model, content, str(path), places)
    faults = []
    for place, check in checks(spec).items():
        try:
            check()
        except InputError as error:
            faults.append(f"{_where(place, str(path), places)}: {_dotted(place)}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    return spec


def make_spec(
    model: type[Spec],
    content: Mapping[str, Any],
    source: str,
    places: Mapping[Place, str] | None = None,
) -> Spec:
    """Plain data as `model`; `source` names it in errors, and `places` says where in it a field stands.

    Raises `ConfigError` with all faults at once: where, field, what is allowed, the nearest name.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        faults = [_fault(model, dict(fault), source, places or {}) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(faults)) from error


def _apply_override(content: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"override '{override}': must have the form field.subfield=value")
    *parents, last = name.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"override '{override}': '{parent}' has no fields of its own")
        content = below
    content[last] = parse_yaml(text, f"override '{override}'")


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _where(place: Place, source: str, places: Mapping[Place, str]) -> str:
    """The file and line of a field, or the override that it is from."""
    while place and place not in places:
        place = place[:-1]
    return places.get(place, source)


def _fault(model: type[BaseModel], fault: dict[str, Any], source: str, places: Mapping[Place, str]) -> str:
    location, allowed = _followed(model, fault["loc"])
    where, field = _where(location, source, places), _dotted(location)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown field '{field}'{suggest(str(location[-1]), allowed)}"
    if fault["type"] == "missing":
        return f"{where}: the field '{field}' is missing"
    if fault["type"] == "union_tag_invalid":
        name, tag, tags = (fault["ctx"][part] for part in ("discriminator", "tag", "expected_tags"))
        return f"{where}: {field}: no {name[1:-1]} '{tag}'{suggest(tag, _QUOTED.findall(tags))}"
    named = fault["type"] in ("literal_error", "unknown_name")
    nearest = closest(str(fault["input"]), _QUOTED.findall(message)) if named else ""
    return f"{where}: {field}: {message}. Got {fault['input']!r} instead{nearest or '.'}"


def _followed(model: type[BaseModel], location: Place) -> tuple[Place, list[str]]:
    """A fault's place in a file, and the fields that the innermost model on the way there has.

    pydantic adds to a place the tags of unions, and a mark behind a mapping's key.
    """
    annotation: Any = model
    allowed, plain = list(model.model_fields), []
    for part in location:
        models = _models_in(annotation)
        if get_origin(annotation) in (dict, Mapping):  # a key may be called as a field or a tag is
            annotation = get_args(annotation)[1]
        elif fields := [found.model_fields for found in models if part in found.model_fields]:
            annotation = fields[0][str(part)].annotation
        elif tagged := [found for found in models if _has_tag(found, part)]:
            annotation, allowed = tagged[0], list(tagged[0].model_fields)
            continue
        elif _is_tag(annotation, part):
            continue
        if part != "[key]":
            plain.append(part)
        if inner := _models_in(annotation):
            allowed = list(inner[0].model_fields)
    return tuple(plain), allowed


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, as those of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _is_tag(annotation: Any, part: str | int) -> bool:
    """Whether `part` is the `Tag` of a union's member that is no model."""
    return any(Tag(str(part)) in getattr(member, "__metadata__", ()) for member in getattr(annotation, "__args__", ()))


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    """Whether `tag` is how pydantic names this member of a union in a fault's location."""
    return any(tag in getattr(field.annotation, "__args__", ()) for field in model.model_fields.values())
