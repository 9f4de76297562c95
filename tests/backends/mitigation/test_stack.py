"""Names of stacks: what may stand together in which order, and what is said of the rest."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.mitigation.make import mitigated, techniques
from backends.mitigation.stack import ESTIMATORS, OTHER_STATES, TECHNIQUES, parse
from backends.mitigation.types import MitigationOptions
from circuits.errors import UsageError
from tests.backends.mitigation.devices import context, twin


@pytest.mark.parametrize("text", ["none", "", " None "])
def test_none_is_no_technique(text: str) -> None:
    assert parse(text) == ()


@pytest.mark.parametrize("text", ["readout+zne", " READOUT + Zne "])
def test_what_a_stack_means(text: str) -> None:
    assert parse(text) == ("readout", "zne")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("znee", ("'znee'", "Did you mean zne?", "Known: none, auto, readout")),
        ("readuot+zne", ("'readuot'", "Did you mean readout?")),
        ("readout,zne", ("joined with +", "Take readout+zne.")),
        ("zne readout", ("joined with +", "Take readout+zne.")),
        ("rem", ("'rem'", "Did you mean readout?")),
        ("dd+zne", ("'dd'", "Did you mean ddd?")),
        ("magic", ("'magic'", "Known:")),
        ("readout+", ("''",)),
        ("zne+zne", ("twice", "Take zne.")),
        ("readout+zne+readout", ("twice", "readout+zne")),
        ("zne+pec", ("both remove", "Take zne or pec.")),
        ("readout+lre+cdr", ("both remove", "readout+lre or readout+cdr")),
        ("zne+readout", ("order", "Take readout+zne.")),
        ("twirl+ddd+zne", ("order", "Take ddd+twirl+zne.")),
        ("symmetry+pec", ("symmetry and pec do not go together", "Take pec, or symmetry with zne or lre")),
        ("readout+symmetry+twirl+cdr", ("symmetry and cdr do not go together", "Take readout+twirl+cdr, or")),
        ("readout+none", ("no part of a stack", "--mitigation none")),
        ("auto+zne", ("no part of a stack", "--mitigation auto")),
    ],
)
def test_what_cannot_be_is_said(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    for word in words:
        assert word in str(caught.value)


@given(st.lists(st.sampled_from(list(TECHNIQUES)), min_size=1, max_size=5, unique=True))
def test_every_set_has_one_order_and_the_message_names_it(names: list[str]) -> None:
    ordered = [name for name in TECHNIQUES if name in names]
    if len(set(names) & set(ESTIMATORS)) > 1:
        for each in permutations(names):
            with pytest.raises(UsageError):
                parse("+".join(each))
        return
    if "symmetry" in names and set(names) & set(OTHER_STATES):
        with pytest.raises(UsageError, match=r"do not go together|another order"):
            parse("+".join(names))
        return
    assert parse("+".join(ordered)) == tuple(ordered)
    if names != ordered:
        with pytest.raises(UsageError) as caught:
            parse("+".join(names))
        assert f"Take {'+'.join(ordered)}." in str(caught.value)


def test_an_empty_stack_is_the_engine_itself() -> None:
    engine = twin("fake_kyiv")
    assert mitigated(engine, context("fake_kyiv").target, MitigationOptions(), exact=True) is engine


@pytest.mark.parametrize("name", TECHNIQUES)
def test_every_name_is_a_technique(name: str) -> None:
    (found,) = techniques(context("fake_kyiv", name))
    assert found.name == name
    assert isinstance(found.by_value, bool)
