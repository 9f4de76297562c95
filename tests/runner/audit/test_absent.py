"""Peers that are hostile, late, or lie together: what the peers saw holds, what they let pass is false."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.aggregate import aggregate
from runner.audit.audit import Audit
from runner.federation import Federation
from runner.publishing import Publishing, common_model
from runner.round import Member, RoundPlayer
from runner.update import Update, blocks_digest
from tests.runner.audit.conftest import Audits
from tests.runner.small_federation import opened, small_config
from tests.runner.test_federation import FILES, HOSTILE, hostile, others_signature, put_signed, vote

MADE_UP = {"config/task/experiment", "feature map/content"}
"""These federations have made-up features: no experiment's, and no map's."""


@contextmanager
def lifted() -> Iterator[pytest.MonkeyPatch]:
    """Patches that the audit does not see."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def false(audit: Audit) -> dict[str, str]:
    return {c.id: f"{c.claim}: {c.reason}" for c in audit.findings.of("false") if c.id not in MADE_UP}


@pytest.mark.parametrize("kind", ["norm", "another node", "another start", "nonsense", "made-up input"])
def test_a_hostile_model_that_the_peers_saw_through_is_no_false_statement(
    kind: str, tmp_path: Path, verified: Audits
) -> None:
    make, _ = FILES[kind]
    with lifted() as patch:
        hostile(patch, lambda p, m, n, u: put_signed(p, m, n, make(u)))
        with opened(small_config(4, 2), tmp_path / "run") as federation:
            federation.play()
    found = verified(tmp_path / "run")
    assert false(found) == {}
    absent = [check for check in found.findings.of("holds") if "counts as absent" in check.claim]
    assert len({check.id.split("/")[1] for check in absent}) == 2
    assert [c for c in found.findings.of("holds") if c.id.startswith("grades/1/") and "/absent/" in c.id]


def test_a_model_with_anothers_signature_is_no_false_statement_where_it_was_seen(
    tmp_path: Path, verified: Audits
) -> None:
    with lifted() as patch:
        hostile(patch, others_signature)
        with opened(small_config(4, 1), tmp_path / "run") as federation:
            federation.play()
    assert false(verified(tmp_path / "run")) == {}


def unweighed(player: RoundPlayer, member: Member, number: int, update: Update) -> tuple[str, str]:
    """A start made with other weights than the contract's, and named so: inputs and digest fit each other."""
    if len(update.inputs) < 2:
        return put_signed(player, member, number, update.to_bytes())
    sources = player.publishing.sources(number)
    inputs = tuple(replace(i, weight=1 + k) for k, i in enumerate(update.inputs))
    by_cid = {p.cid: p.update for p in sources.models.values()}
    blocks = [u.blocks for i in inputs if (u := by_cid[i.cid]) is not None]
    start = blocks_digest(aggregate(blocks, [i.weight for i in inputs]))
    return put_signed(player, member, number, replace(update, inputs=inputs, start=start).to_bytes())


def test_an_aggregation_from_other_weights_that_all_let_pass_is_false(tmp_path: Path, verified: Audits) -> None:
    with lifted() as patch:
        hostile(patch, unweighed)
        patch.setattr(Publishing, "_check_start", lambda *_: None)
        with opened(small_config(4, 2), tmp_path / "run") as federation:
            federation.play()
    found = false(verified(tmp_path / "run"))
    assert f"aggregation/2/{HOSTILE}/start" in found
    assert "do not weigh what the contract says" in found[f"aggregation/2/{HOSTILE}/start"]


def test_a_signature_that_all_let_pass_is_false(tmp_path: Path, verified: Audits) -> None:
    with lifted() as patch:
        hostile(patch, others_signature, only=1)
        patch.setattr(Publishing, "_check_author", lambda *_: None)
        with opened(small_config(4, 1), tmp_path / "run") as federation:
            federation.play()
    found = false(verified(tmp_path / "run"))
    assert list(found) == [f"signatures/1/{HOSTILE}"]
    assert "did not sign this statement" in found[f"signatures/1/{HOSTILE}"]


def test_a_final_model_that_does_not_follow_is_false(tmp_path: Path, verified: Audits) -> None:
    with opened(small_config(3, 1), tmp_path / "run") as federation:
        rounds = federation.play()
        other = rounds[0].nodes[0].cid
        for member in federation.members:
            federation.contract.conclude(member.account, other, other)
    found = false(verified(tmp_path / "run"))
    assert {"end/0/model", "end/1/model", "end/2/model"} <= found.keys()
    assert "from the models follows" in found["end/0/model"]


def conclude(federation: Federation) -> None:
    """Publish the final aggregate, and state it."""
    base, blocks, inputs = federation.publishing.aggregate(federation.contract.base())
    cid = federation.store.put(common_model(federation.config, federation.publishing.map_cid, base, blocks, inputs))
    for member in federation.members:
        federation.contract.conclude(member.account, cid, b"r" * 32)


@pytest.mark.parametrize("signatures", ["secp256k1", "ml-dsa-65"])
def test_post_quantum_signatures_and_rollbacks_hold(signatures: str, tmp_path: Path, verified: Audits) -> None:
    config = small_config(3, 3, signatures=signatures, aggregation="median")
    with opened(config, tmp_path / "run") as federation:
        federation.play()
        vote(federation, 2)
        conclude(federation)
    found = verified(tmp_path / "run")
    assert false(found) == {}
    assert any(check.id.startswith("rollbacks/") for check in found.findings.of("holds"))
    assert found.findings.counts()["signatures"]["holds"] == 9
    assert "end/report" in {check.id for check in found.findings.of("not checked")}


def test_a_run_under_way_is_audited(tmp_path: Path, verified: Audits) -> None:
    class StopError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StopError

    with lifted() as patch, opened(small_config(3, 2), tmp_path / "run") as federation:
        patch.setattr(RoundPlayer, "_settle", stop)
        with pytest.raises(StopError):
            federation.play()
    found = verified(tmp_path / "run")
    assert false(found) == {}
    assert found.where["state"] == "round 1 is open"
    assert "result/file" in {check.id for check in found.findings.of("not checked")}
