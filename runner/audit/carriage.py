"""A run's published files carried in one CARv1 file: out of its store, and into another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuits.errors import QrunError, UsageError
from contracts.car import read_car, write_car
from contracts.cid import DAG_PB, Cid, parse_cid
from contracts.dag import file_blocks
from contracts.errors import ContentError
from contracts.store import ANY_SIZE, BlockStore
from runner.audit.sources import run_folder
from runner.audit.writing import writing


def export_store(target: str, file: Path, *, force: bool = False) -> dict[str, Any]:
    """Write every whole file of a store to a CAR file, its CID among the roots.

    Args:
        target: A run, or a folder of blocks.
        file: The CAR file.
        force: Whether one that exists is replaced.

    Returns:
        file, files (roots), blocks.

    Raises:
        UsageError: there is no such run or folder, or the file exists.
        QrunError: the store is empty, or a block in it is damaged or missing.
    """
    folder = _blocks_of(target)
    store = BlockStore(folder, read_only=True)
    roots = _roots(store, folder)
    if not roots:
        raise QrunError(f"there are no files in the store {folder}.", "Is it a run's folder, or one of blocks?")
    with writing(file, force=force) as out:
        blocks = (pair for root in roots for pair in file_blocks(root, store.get_block, max_bytes=ANY_SIZE))
        count = write_car(out, roots, blocks)
    return {"file": str(file), "files": len(roots), "blocks": count}


def import_store(file: Path, into: str) -> dict[str, Any]:
    """Read a CAR file into a store. Nothing of it is kept unless all of it can be read.

    Returns:
        folder, files (roots), blocks.

    Raises:
        UsageError: there is no such file.
        QrunError: a root has not all of its blocks.
        ContentError: the file is no CARv1 file, is cut off, or a block does not hash to its CID.
    """
    folder = _folder_into(into)
    try:
        with file.open("rb") as stream:
            for _ in read_car(stream).blocks:  # once through: what is broken is told before anything is kept
                pass
            stream.seek(0)
            car = read_car(stream)
            store = BlockStore(folder)
            seen = set()
            for cid, block in car.blocks:
                store.put_block(cid, block)
                seen.add(cid.v1.binary)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", "Give a CAR file.") from None
    partial = [str(root) for root in car.roots if not store.has(str(root))]
    if partial:
        raise QrunError(
            f"{len(partial)} of {len(car.roots)} files of {file} are not whole in {folder}, {partial[0]} first.",
            "What came was kept; the rest is in another file.",
        )
    return {"folder": str(folder), "files": len(car.roots), "blocks": len(seen)}


def _blocks_of(target: str) -> Path:
    """The folder of blocks of a run, or the folder itself."""
    path = Path(target)
    if path.is_dir() and not (path / "blocks").is_dir() and _looks_like_blocks(path):
        return path
    folder = run_folder(target) / "blocks"
    if not folder.is_dir():
        raise QrunError(f"the run in {folder.parent} has published nothing yet: there is no {folder}.")
    return folder


def _folder_into(into: str) -> Path:
    path = Path(into)
    if path.is_dir() and (path / "config.json").exists():
        return path / "blocks"
    try:
        return run_folder(into) / "blocks"
    except UsageError:
        # A name that is no run's is a folder; but a slip in a run's name makes none where there is no path in it.
        if path.is_dir() or path.parent != Path():
            return path
        raise UsageError(
            f"--into {into}: there is no such run and no such folder.", f"For a new folder say ./{path.name}."
        ) from None


def _looks_like_blocks(folder: Path) -> bool:
    return any(len(path.name) == 2 and path.is_dir() for path in folder.iterdir())


def _roots(store: BlockStore, folder: Path) -> list[Cid]:
    """The files of a store: every block that is no part of another one, in the order of their names."""
    every: dict[str, Cid] = {}
    for path in sorted(folder.glob("??/*")):
        try:
            cid = parse_cid(path.name)
        except ContentError:
            continue
        every[path.name] = cid
    parts: set[str] = set()
    for cid in every.values():
        if cid.codec == DAG_PB:
            try:
                tree = list(file_blocks(cid, store.get_block, max_bytes=ANY_SIZE))
            except ContentError as error:
                raise QrunError(f"the store {folder} is damaged: {error.message}") from None
            parts |= {str(child) for child, _ in tree[1:]}
    return [cid for name, cid in every.items() if name not in parts]
