"""Strict YAML, atomic writes, checksums."""

import os

import pytest

from automc.errors import ConfigError, StorageError
from automc.files import canonical_json, closest, parse_yaml, sha256_of, write_atomic, yaml_lines


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("010", 10),
        ("1e-3", 1e-3),
        ("1:30", "1:30"),
        ("true", True),
        ("~", None),
        ("-3", -3),
        (".5", 0.5),
        ("50%", "50%"),
        ("'7'", "7"),
    ],
)
def test_plain_values_mean_what_they_say(text, value):
    parsed = parse_yaml(f"key: {text}", "file.yaml")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "file.yaml:3:1", "'a' appears twice"),
        ("a: &x 1\nb: *x\n", "file.yaml:2:4", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "file.yaml:1:4", "not allowed"),
        ("a: [1, 2\n", "file.yaml:2:1", "expected"),
        ("a:\n\t- 1\n", "file.yaml:2:1", "cannot start any token"),
        ("[" * 5000, "file.yaml:1:51", "nested deeper than 50"),
        ("? [a]\n: 1\n", "file.yaml:1:3", "plain word"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(text, place, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_yaml(text, "file.yaml")
    assert place in str(caught.value)


def test_a_number_of_too_many_digits_is_refused():
    with pytest.raises(ConfigError, match=r"long.yaml: .*digits"):
        parse_yaml(f"a: {'1' * 5000}", "long.yaml")


def test_a_file_of_a_megabyte_is_refused():
    with pytest.raises(ConfigError, match="larger"):
        parse_yaml("a: " + "x" * 1_000_001, "file.yaml")


def test_lines_of_nested_keys():
    lines = yaml_lines("a:\n  b: 1\nc:\n  - d: 2\n  - 3\n")
    assert lines[("a", "b")] == 2
    assert lines[("c", 0, "d")] == 4
    assert lines[("c", 1)] == 5


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_atomic(target, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=f"cannot write {target}: No space left"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_written_files_have_the_usual_permissions(tmp_path):
    write_atomic(tmp_path / "a" / "b", b"content")
    (tmp_path / "plain").write_bytes(b"content")
    assert (tmp_path / "a" / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_program_may_be_executed_from_the_moment_that_it_is_there(tmp_path, monkeypatch):
    replace, modes = os.replace, []
    monkeypatch.setattr(os, "replace", lambda old, new: (modes.append(os.stat(old).st_mode & 0o777), replace(old, new)))
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "program", b"content", mode=0o777)
    finally:
        os.umask(before)
    assert modes == [0o750]


def test_canonical_json_is_one_text_for_equal_values():
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_hash_of_a_file_is_the_hash_of_its_content(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == sha256_of(b"abc")


def test_closest_name():
    assert closest("resnet20_cifr10", ["resnet20_cifar10", "digits"]) == ". Did you mean 'resnet20_cifar10'?"
    assert closest("zzz", ["resnet20_cifar10"]) == ""
