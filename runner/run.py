"""A run from its config to its result: set up, play the rounds, measure, write down; and on after a kill."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.live import is_concrete
from backends.runtime.errors import Detached
from backends.runtime.types import Access, RuntimeContext
from circuits.errors import QrunError, UsageError
from runner import calibration
from runner.access import Said, is_sound, to_json
from runner.affordable import affordable
from runner.config import RunConfig
from runner.jobs import mend_results
from runner.ledger import RunLedger
from runner.options import config_from
from runner.places import Places
from runner.play import Play
from runner.prepare import Prepared, prepare
from runner.progress import Reporter, Warn
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo, RunStore, locked, on_disk, write_durably
from runner.versions import versions

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Outcome:
    """A finished run: its name, its folder, its result (runner/result.schema.json)."""

    run: str
    path: Path
    result: dict[str, Any]


def run(
    experiment: str,
    *,
    data_dir: Path | str | None = None,
    out: Path | str | None = None,
    chain: str | None = None,
    ipfs: str | None = None,
    gateways: Sequence[str] = (),
    confirmations: int | None = None,
    config: Path | str | None = None,
    said: Said | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run an experiment and give its result.

    Args:
        experiment: Its name, e.g. "nsl-kdd".
        data_dir: Folder of the data set's files; None to look for them.
        out: Folder of the run; None for one in the user's data folder.
        chain: JSON-RPC URL; None for a chain in the run's folder.
        ipfs: Address of an IPFS daemon; None for a store in the run's folder.
        gateways: Addresses of IPFS gateways, asked for what the daemon has not.
        confirmations: Blocks that a transaction must be in or under, on a chain behind a URL; by default one.
        config: TOML file of values.
        said: How IBM's service may be asked, for a run that sends it jobs.
        reporter: Told of the progress; without one, what has to be known (stand-in data ...) is a warning.
        **options: Values of RunConfig and its tables, e.g. backend="fake_kyiv", rounds=3, qubits=4; they win.

    Raises:
        QrunError: with one line that says what to do.
        LedgerError: the same, of chain and store.
        Detached: all that could be sent is sent, and `said` was not to wait for it.
    """
    reporter = reporter or Warn()
    outcome = start(
        config_from(experiment, options, None if config is None else Path(config), tell=reporter.notice),
        Places(None if data_dir is None else Path(data_dir), chain, ipfs, tuple(gateways), confirmations),
        out=None if out is None else Path(out),
        said=said,
        reporter=reporter,
    )
    return outcome.result


def resume(
    name: str,
    *,
    data_dir: Path | str | None = None,
    chain: str | None = None,
    ipfs: str | None = None,
    gateways: Sequence[str] = (),
    confirmations: int | None = None,
    said: Said | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Go on with a run that stopped, and give its result. Arguments and errors as for `run`."""
    where = Places(None if data_dir is None else Path(data_dir), chain, ipfs, tuple(gateways), confirmations)
    return go_on(name, places=where, said=said, reporter=reporter).result


def start(
    config: RunConfig,
    places: Places,
    *,
    out: Path | None = None,
    said: Said | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Enter a new run in a folder of its own, and play it to the end.

    Raises:
        Detached: all that could be sent to devices is sent, and `said` was not to wait for it; it names the run.
    """
    reporter, said = reporter or Warn(), said or Said()
    places.check()
    said.fits(config)
    if config.federation.asynchronous:
        raise UsageError(
            "federation.schedule = 'async': in one process every node waits for the one before it.",
            "Peers that wait for nobody are processes: qrun task open ... --schedule async, then qrun node.",
        )
    access = said.access()
    prepared = prepare(config, reporter)
    affordable(config, prepared, access, reporter)
    manifest: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "places": places.to_json(),
        "device": prepared.device,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    if config.runtime is not None:
        manifest["access"] = to_json(access)
    if config.chosen is not None:
        manifest["chosen"] = config.chosen
    index = RunIndex()
    try:
        info = index.create(f"{config.experiment}-{config.digest.hex()[:8]}", out, manifest)
        try:
            manifest = index.manifest(info.run)
            return _play(info, manifest, config, places, prepared=prepared, access=access, reporter=reporter)
        except Detached:
            raise
        except Exception as error:
            then = f"qrun runs resume {info.run}"
            if not _forget_if_empty(index, info) and then not in str(error):
                error.add_note(f"Go on with: {then}")
            raise
    finally:
        index.close()


def _play(
    info: RunInfo,
    manifest: Mapping[str, Any],
    config: RunConfig,
    places: Places,
    *,
    prepared: Prepared,
    access: Access,
    reporter: Reporter,
) -> Outcome:
    with on_disk(info.path), locked(info.path):
        if (info.path / "result.json").exists():
            # Another process finished it between our look and our lock.
            return Outcome(info.run, info.path, read_result(info.path))
        if not (info.path / "config.json").exists():
            write_durably(info.path / "config.json", json.dumps(manifest, indent=2).encode())
        _keep_calibrations(config, info.path)
        store = RunStore(info.run, info.path, spent=prepared.seconds)
        try:
            store.add_seconds("compiling", prepared.seconds)
            runtime = None
            if config.runtime is not None:
                store.put("access", to_json(access))
                runtime = context(config, access, info.run, reporter)
            ledger = RunLedger(store)
            mend_results(ledger, reporter.notice)
            chosen = manifest.get("chosen")
            play = Play(config, places, store, manifest["versions"], reporter, prepared, ledger, chosen, runtime)
            result = play.play()
        except Detached as left:
            left.run = info.run
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted. Go on with: qrun runs resume {info.run}") from None
        finally:
            store.close()
    return Outcome(info.run, info.path, result)


def context(config: RunConfig, access: Access, run: str, reporter: Reporter) -> RuntimeContext:
    """What the runtime engine is handed, for a config that has a part for it."""
    if config.runtime is None or (config.runtime.run_on is None and config.shots is None):
        raise ValueError("the config has no part for IBM's Runtime")
    shots = config.runtime.shots if config.runtime.run_on is not None else config.shots
    told = set[tuple[str, str]]()

    def tell(title: str, text: str) -> None:
        # Every node has an engine of its own, and all say the same.
        if (title, text) not in told:
            told.add((title, text))
            reporter.notice(title, text)

    return RuntimeContext(config.runtime.options(shots or 0), access, run, tell)


def _keep_calibrations(config: RunConfig, folder: Path) -> None:
    """Put the calibrations of hardware devices into the run's folder: it goes on from there, without the service."""
    run_on = config.runtime
    for name, sha256 in (
        (config.backend, config.snapshot_sha256),
        *([] if run_on is None else [(run_on.run_on, run_on.run_on_sha256)]),
    ):
        if name is not None and sha256 is not None and is_concrete(name):
            calibration.keep(calibration.find(name, sha256, folder).content, folder)


def _forget_if_empty(index: RunIndex, info: RunInfo) -> bool:
    """A run that failed before anything was paid for or acknowledged leaves nothing behind; whether it was so."""
    with suppress(QrunError, sqlite3.Error, OSError):
        if (info.path / "state.sqlite").exists():
            store = RunStore(info.run, info.path)
            try:
                begun = store.get("begun") is not None or any(j.state != "intended" for j in RunLedger(store).jobs())
            finally:
                store.close()
            if begun:
                return False
        index.remove(info)
        return True
    return False


def go_on(
    name: str, *, places: Places | None = None, said: Said | None = None, reporter: Reporter | None = None
) -> Outcome:
    """Go on with a run that stopped. A finished run is only read.

    Args:
        name: The run, or an unambiguous beginning of its name.
        places: What has moved since.
        said: How IBM's service may be asked; what is not said stays as it was said before.
        reporter: Told of the progress.

    Raises:
        UsageError: `said` has what would do nothing in this run.
        Detached: as `start`.
        QrunError: another process works on it, its folder is damaged, its chain is not the one it began on, or it began
            on a GPU and there is none here.
    """
    reporter, said = reporter or Warn(), said or Said()
    index = RunIndex()
    try:
        info = index.find(name)
        manifest = index.manifest(info.run)
    finally:
        index.close()
    if info.state == "missing":
        raise QrunError(f"the folder of run {info.run} ({info.path}) is gone.", f"`qrun runs rm {info.run}`.")
    if info.state == "finished":
        reporter.notice("Finished", f"Run {info.run} was finished already; this is its result.")
        return Outcome(info.run, info.path, read_result(info.path))
    # The index has the manifest too: a run that was killed before it had written its folder goes on from there.
    if not (info.path / "config.json").exists():
        write_durably(info.path / "config.json", json.dumps(manifest, indent=2).encode())
    config, manifest = read_manifest(info.path)
    if config.digest.hex() != manifest["config_digest"]:
        raise QrunError(
            f"run {info.run} was begun with a version of qrun that had other settings.",
            f"Resume it with qrun {manifest['versions'].get('qrun')}, or start it anew.",
        )
    said.fits(config)
    access = said.access(manifest.get("access"), _said_before(info))
    now = versions()
    if now != manifest["versions"]:
        changed = [k for k in now if now[k] != manifest["versions"].get(k)]
        reporter.notice(
            "Versions",
            f"The run was begun with other versions of {', '.join(changed)}; its CIDs may differ from then on.",
        )
    where = Places.recall(manifest["places"], places or Places())
    prepared = prepare(config, reporter, device=manifest.get("device"), folder=info.path)
    return _play(info, manifest, config, where, prepared=prepared, access=access, reporter=reporter)


def _said_before(info: RunInfo) -> dict[str, Any] | None:
    """How the service might be asked in the attempt before this one."""
    if not (info.path / "state.sqlite").exists():
        return None
    with on_disk(info.path):
        store = RunStore(info.run, info.path)
        try:
            kept = store.get("access")
        finally:
            store.close()
    return kept if is_sound(kept) else None
