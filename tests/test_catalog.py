"""Names find files, nearest folder first, and are never paths."""

import pytest

from automc import catalog
from automc.errors import NameNotFound


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOMC_PATH", raising=False)
    return tmp_path


def test_own_files_are_found_from_anywhere(elsewhere):
    assert catalog.find("envs", "resnet8_digits").parent == catalog.own_folder() / "envs"


def test_a_nearer_file_hides_a_farther_one(elsewhere, monkeypatch):
    (elsewhere / "envs").mkdir()
    (elsewhere / "envs" / "resnet8_digits.yaml").write_text("")
    assert catalog.find("envs", "resnet8_digits").is_relative_to(elsewhere)
    (elsewhere / "more" / "envs").mkdir(parents=True)
    (elsewhere / "more" / "envs" / "resnet8_digits.yaml").write_text("")
    monkeypatch.setenv("AUTOMC_PATH", str(elsewhere / "more"))
    assert catalog.find("envs", "resnet8_digits").is_relative_to(elsewhere / "more")


def test_files_with_other_names_are_left_out(elsewhere):
    (elsewhere / "envs").mkdir()
    (elsewhere / "envs" / "two words.yaml").write_text("")
    assert "two words" not in catalog.entries("envs")


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(NameNotFound, match="Did you mean 'resnet8_digits'"):
        catalog.find("envs", "resnet8_digts")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a b", "", ".", "~", "x\0y", "C:\\x", "..."])
def test_a_name_is_never_a_path(name):
    with pytest.raises(NameNotFound):
        catalog.find("envs", name)
