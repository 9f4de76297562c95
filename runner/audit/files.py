"""What lies in a run's folder beside chain and store: copies of models, a picture, the manifest, the keys."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from circuits.hostile import load_json, read_regular
from contracts.cid import cid_of, parse_cid
from contracts.errors import ContentError
from runner.audit.checks import Findings
from runner.audit.sources import Evidence
from runner.audit.task_state import TaskState
from runner.update import MAX_BYTES

ODD = "it is no plain file, or larger than any that qrun writes"


def check_manifest(findings: Findings, evidence: Evidence, state: TaskState) -> None:
    """That config.json is of the run's config."""
    claim = "config.json is of the config whose digest is on the chain"
    if evidence.manifest is None:
        if evidence.folder is not None and not evidence.of_node:
            findings.skipped("config/file", claim, "there is no config.json")
        return
    from runner.config import canonical

    reason = ""
    try:
        manifest = load_json(evidence.manifest, max_bytes=MAX_BYTES, what="config.json")
        digest = hashlib.sha256(canonical(manifest["config"])).hexdigest()
        wanted = state.spec.config_digest.hex()
        if manifest["config_digest"] != wanted or digest != wanted:
            reason = f"its digest is {digest[:16]}…, and it names {str(manifest['config_digest'])[:16]}…"
    except (QrunError, KeyError, TypeError, AttributeError):
        reason = "it is damaged"
    findings.test(not reason, "config/file", claim, reason, "config.json")


def check_copies(findings: Findings, folder: Path, result: Mapping[str, Any]) -> None:
    """That the models under readable names are those of the CIDs in the result."""
    models = folder / "models"
    if not models.is_dir():
        findings.skipped("files/models", "models/ holds copies of the run's models", "there is no such folder")
        return
    try:
        named = {"feature-map.json": result["feature_map"]["cid"], "final.json": result["final"]["cid"]}
        for round_ in result["rounds"]:
            for node in round_["nodes"]:
                if not node["fault"]:
                    named[f"round-{int(round_['number']):03d}-node-{int(node['id']):02d}.json"] = node["cid"]
    except (KeyError, TypeError, ValueError):
        findings.false("files/models", "models/ holds copies of the run's models", "the result does not say of which")
        return
    for name, cid in named.items():
        claim = f"models/{name} is the model that the result names"
        data = _bounded(models / name)
        if data is None:
            findings.false(f"files/models/{name}", claim, "it is missing, too large, or no plain file", str(cid))
        else:
            found = str(cid_of(data))
            findings.test(found == cid, f"files/models/{name}", claim, f"its CID is {found}, not {cid}", str(cid))
    for path in sorted(models.iterdir()):
        if path.name not in named:
            findings.false(f"files/models/{path.name}", f"models/{path.name} is a model of the run", "the run has none "
                           "of that name")  # fmt: skip


def check_artefacts(findings: Findings, folder: Path, result: Mapping[str, Any]) -> None:
    """That the files whose hashes the result names have them."""
    artefacts = result.get("artefacts")
    for name, digest in sorted(artefacts.items()) if isinstance(artefacts, dict) else ():
        claim = f"{name} is the file that the result names"
        if Path(str(name)).name != name:
            findings.false(f"files/{name}", claim, "that is no name of a file in the run's folder")
            continue
        data = _bounded(folder / name)
        if data is None and _odd(folder / name):
            findings.false(f"files/{name}", claim, ODD)
            continue
        if data is None:
            findings.skipped(f"files/{name}", claim, "it is not here")
            continue
        found = hashlib.sha256(data).hexdigest()
        findings.test(found == digest, f"files/{name}", claim, f"its SHA-256 is {found[:16]}…, not {str(digest)[:16]}…")


def check_keys(findings: Findings, folder: Path, state: TaskState) -> None:
    """That keys.json, if it is here, has the nodes' keys; which ones is never told."""
    claim = "keys.json holds the keys of the opener and of every node"
    data = _bounded(folder / "keys.json")
    if data is None:
        if _odd(folder / "keys.json"):
            findings.false("files/keys.json", claim, ODD, "keys.json")
        return
    from eth_account import Account

    from contracts.errors import LedgerError
    from contracts.signatures import mldsa_key, signing_key
    from experiments.features.secure_sum import ExchangeKey

    try:
        body = load_json(data, max_bytes=MAX_BYTES, what="keys.json")
        opener = Account.from_key(_key(body["opener"])).address
        found = []
        for keys in body["nodes"]:
            seed = keys.get("signing")
            found.append(
                (
                    Account.from_key(_key(keys["chain"])).address,
                    ExchangeKey.from_bytes(_key(keys["exchange"])).public,
                    None if seed is None else signing_key(mldsa_key(_key(seed))),
                )
            )
    except LedgerError as error:
        findings.skipped("files/keys.json", claim, error.message)
        return
    except Exception:
        # Whatever a library raises about a key that is none; and no key may come into a message.
        findings.false("files/keys.json", claim, "it is damaged: what stands there are no keys", "keys.json")
        return
    registered = [(r.account, r.exchange_key, r.signing_key) for _, r in sorted(state.registered.items())]
    wrong = [str(i) for i, (one, other) in enumerate(zip(found, registered, strict=False)) if one != other]
    wrong += ["the opener"] if opener != state.opener else []
    findings.test(
        not wrong and len(found) >= len(registered), "files/keys.json", claim,
        f"the keys of {', '.join(wrong) or 'some'} are not those on the chain", "keys.json",
    )  # fmt: skip


def _key(text: object) -> bytes:
    """A key as keys.json has it: 64 lower-case hex digits."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("no key")
    return bytes.fromhex(text)


def check_blocks(findings: Findings, folder: Path) -> None:
    """That every block in the run's store is the one that its name says, whether a statement needs it or not."""
    store = folder / "blocks"
    if not store.is_dir():
        findings.skipped("files/blocks", "every block in the store hashes to its name", "there is no folder blocks/")
        return
    damaged, count = 0, 0
    for path in sorted(store.glob("??/*")):
        count += 1
        try:
            sound = parse_cid(path.name).matches(_bounded(path) or b"")
        except ContentError:
            sound = False
        if not sound:
            damaged += 1
            findings.false(
                f"files/blocks/{path.name}", f"the block {path.name} in the store hashes to its name",
                "its bytes were changed", f"blocks/{path.parent.name}/{path.name}",
            )  # fmt: skip
    if not damaged:
        findings.test(True, "files/blocks", f"every block in the store hashes to its name ({count} of them)")


def _odd(path: Path) -> bool:
    """Whether something stands under the name of a file that cannot be read."""
    try:
        return os.path.lexists(path)
    except ValueError:  # no name of a file
        return False


def _bounded(path: Path) -> bytes | None:
    """A file's bytes; None where it is missing, no plain file, or larger than any model."""
    try:
        return read_regular(path, max_bytes=MAX_BYTES, what=path.name)
    except (QrunError, OSError):
        return None
