"""The file of cells: what was acknowledged is found again, a torn line is dropped, anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from circuits.errors import QrunError, UsageError
from runner.attack.cells import ALONE, Cell, CellFile, Line, plan

ABOUT = {"config": "00", "hostile": 3}


def line(seed: int = 0, attack: str = "sign-flip") -> Line:
    return Line(Cell("iid", seed, attack, "reputation"), (1, None, 2), (2, None, None), 1, 0, 10, 0.97, 12.5)


def slow(seed: int = 0) -> Line:
    return replace(line(seed), slow=(4, 1, 0))


def filled(path: Path, *lines: Line) -> None:
    file = CellFile(path, ABOUT)
    for one in lines:
        file.add(one)
    file.close()


def test_cells_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    filled(path, line(0), line(1))
    again = CellFile(path, ABOUT)
    assert list(again.rows.values()) == [line(0), line(1)]
    again.close()
    assert b"slow" not in path.read_bytes()


def test_cells_of_windows_have_slow_nodes_in_them(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    filled(path, slow(0), slow(1))
    again = CellFile(path, ABOUT)
    assert list(again.rows.values()) == [slow(0), slow(1)]
    again.close()
    path.write_bytes(path.read_bytes().replace(b"[4, 1, 0]", b"[4, 1]", 1))
    with pytest.raises(UsageError, match="line 2: not a cell"):
        CellFile(path, ABOUT)


def test_a_file_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    filled(path, line(0), line(1))
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        file = CellFile(path, ABOUT)
        whole = max(0, sum(end <= cut for end in ends) - 1)
        assert len(file.rows) == whole
        for missing in [line(0), line(1)][whole:]:
            file.add(missing)
        file.close()
        assert path.read_bytes() == data


def test_another_table_or_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    filled(path, line())
    data = path.read_bytes()
    with pytest.raises(UsageError, match="cells of another table"):
        CellFile(path, {**ABOUT, "config": "11"})
    assert path.read_bytes() == data
    for content in (b"my diary", b"my diary\n", b"\x00\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="holds something else"):
            CellFile(path, ABOUT)
        assert path.read_bytes() == content
    with pytest.raises(UsageError, match="--out"):
        CellFile(tmp_path / "nowhere" / "cells.jsonl", ABOUT)


@pytest.mark.parametrize(
    "change",
    [
        (b'"seed": 0', b'"seed": -1'),
        (b'"auroc": 0.97', b'"auroc": 7.5'),
        (b"[1, null, 2]", b"[1, null, 0]"),
        (b'"votes": 10', b'"votes": "10"'),
        (b'"votes": 10, ', b""),
        (b'"votes": 10', b'"votes": 10, "more": 1'),
        (b"{", b"["),
    ],
)
def test_a_line_that_is_no_cell_is_named(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    path = tmp_path / "cells.jsonl"
    filled(path, line())
    head, body = path.read_bytes().split(b"\n", 1)
    assert change[0] in body
    path.write_bytes(head + b"\n" + body.replace(*change, 1))
    with pytest.raises(UsageError, match="line 2: not a cell"):
        CellFile(path, ABOUT)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    file = CellFile(tmp_path / "cells.jsonl", ABOUT)
    with pytest.raises(QrunError, match="another process writes"):
        CellFile(tmp_path / "cells.jsonl", ABOUT)
    file.close()


def test_the_plan_has_each_case_once_and_others_on_few_seeds() -> None:
    cells = plan(["iid", "dirichlet:0.5"], range(3), ["sign-flip", "poisoned"], ["reputation", "mean"], others=1)
    assert len(cells) == len(set(cells)) == 2 * (3 * (1 + 2) + 2)
    assert sum(c.attack == ALONE for c in cells) == 6
    assert {c.seed for c in cells if c.aggregation == "mean" and c.attack != ALONE} == {0}
