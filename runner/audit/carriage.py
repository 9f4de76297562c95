"""A run's published files carried in one CARv1 file: out of its store, and into another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from circuits.errors import QrunError, UsageError
from contracts.car import read_car, write_car
from contracts.cid import DAG_PB, Cid, parse_cid
from contracts.dag import broken_files, distinct_blocks, links_of
from contracts.errors import ContentError
from contracts.store import ANY_SIZE, BlockStore
from runner.audit.sources import run_folder
from runner.audit.writing import writing

MAX_BLOCKS = 1_000_000
"""Different blocks that are taken from one CAR file: each is a file in the store."""


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
        count = write_car(out, roots, distinct_blocks(roots, store.get_block))
    return {"file": str(file), "files": len(roots), "blocks": count}


def import_store(file: Path, into: str) -> dict[str, Any]:
    """Read a CAR file into a store. Nothing of it is kept unless all of it can be read.

    Returns:
        folder, files (different roots), blocks.

    Raises:
        UsageError: there is no such file.
        QrunError: a root has not all of its blocks.
        ContentError: the file is no CARv1 file, is cut off, a block does not hash to its CID, or there are more than
            MAX_BLOCKS.
    """
    folder = _folder_into(into)
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is no plain file.", "Give a CAR file.")
    try:
        with file.open("rb") as stream:
            seen: set[bytes] = set()
            for cid, _ in read_car(stream).blocks:  # once through: what is broken is told before anything is kept
                seen.add(cid.v1.binary)
                if len(seen) > MAX_BLOCKS:
                    raise ContentError(f"{file} has more than {MAX_BLOCKS} blocks; no more are taken.")
            stream.seek(0)
            car = read_car(stream)
            store = BlockStore(folder)
            kept: set[bytes] = set()
            for cid, block in car.blocks:
                if cid.v1.binary not in kept:
                    store.put_block(cid, block)
                    kept.add(cid.v1.binary)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", "Give a CAR file.") from None
    roots = list({root.v1: root for root in car.roots}.values())
    broken = broken_files(roots, store.get_block, max_bytes=ANY_SIZE)
    if broken:
        raise QrunError(
            f"{len(broken)} of {len(roots)} files of {file} are not whole in {folder}, {next(iter(broken))} first.",
            "What came was kept; the rest is in another file.",
        )
    return {"folder": str(folder), "files": len(roots), "blocks": len(kept)}


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
        # `Path` drops the ./ of a new folder's name, so that the text is asked.
        if path.is_dir() or any(separator and separator in into for separator in (os.sep, os.altsep)):
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
    nodes = [cid for cid in every.values() if cid.codec == DAG_PB]
    for reason in broken_files(nodes, store.get_block, max_bytes=ANY_SIZE).values():
        raise QrunError(f"the store {folder} is damaged: {reason}")
    parts = {str(link.v1) for cid in nodes for link in links_of(cid, store.get_block(cid))}
    return [cid for name, cid in every.items() if name not in parts]
