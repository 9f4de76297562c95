"""Where runs and peers are: what goes together, what is kept of it, and what is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import UsageError
from contracts.ipfs import IpfsStore
from contracts.store import BlockStore
from runner.peers.places import PeerPlaces
from runner.places import Places, is_sound

NODE, DAEMON, GATEWAY = "http://127.0.0.1:8545", "http://127.0.0.1:5001", "https://gateway.example.org"


def test_what_nobody_gave_is_not_written() -> None:
    assert Places().to_json() == {"data": None, "chain": None, "ipfs": None}
    whole = Places(None, NODE, DAEMON, (GATEWAY,), 3)
    assert whole.to_json() == {
        "data": None, "chain": NODE, "ipfs": DAEMON, "gateways": [GATEWAY], "confirmations": 3,
    }  # fmt: skip
    assert whole.policy.confirmations == 3
    assert Places().policy.confirmations == 1


def test_what_is_given_later_wins() -> None:
    kept = json.loads(json.dumps(Places(None, NODE, DAEMON, (GATEWAY,), 3).to_json()))
    assert is_sound(kept)
    assert Places.recall(kept, Places()) == Places(None, NODE, DAEMON, (GATEWAY,), 3)
    later = Places.recall(kept, Places(gateways=("http://127.0.0.1:8080",), confirmations=1))
    assert (later.gateways, later.confirmations) == (("http://127.0.0.1:8080",), 1)
    with pytest.raises(UsageError, match="--confirmations is of"):
        Places.recall(Places().to_json(), Places(confirmations=2))


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (Places(ipfs=None, gateways=(GATEWAY,)), "--gateway is asked"),
        (Places(confirmations=2), "--confirmations is of a chain behind a URL"),
    ],
)
def test_what_does_not_go_together(places: Places, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        places.check()


@pytest.mark.parametrize("confirmations", [-1, 0, 1001])
@pytest.mark.parametrize("kind", [Places, PeerPlaces])
def test_confirmations_are_bounded(confirmations: int, kind: type) -> None:
    with pytest.raises(UsageError, match=f"--confirmations {confirmations}"):
        kind(chain=NODE, confirmations=confirmations)


@pytest.mark.parametrize("gateway", ["gateway.example.org", "https://somebody:hunter2@example.org", "ipfs://x"])
def test_what_is_no_gateway(gateway: str) -> None:
    with pytest.raises(UsageError, match=r"--gateway: .* is no address of an IPFS gateway") as caught:
        Places(ipfs=DAEMON, gateways=(gateway,))
    assert "hunter2" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(["data", "chain", "ipfs", "gateways", "confirmations"]), json_values))
def test_a_folder_that_was_edited(saved: dict[str, object]) -> None:
    if is_sound(saved):
        assert isinstance(saved.get("gateways", []), list)
        assert all(isinstance(gateway, str) for gateway in saved.get("gateways", []))  # type: ignore[attr-defined]
        assert type(saved.get("confirmations", 1)) is int


# -- of a peer --------------------------------------------------------------------------------------------------------


def test_a_peer_has_a_chain_and_a_store(tmp_path: Path) -> None:
    alone = PeerPlaces(NODE, folder=tmp_path)
    assert not alone.shared
    store = alone.open_store()
    assert isinstance(store, BlockStore)
    assert store.folder == tmp_path / "blocks"
    together = PeerPlaces(NODE, folder=tmp_path, blocks=tmp_path / "all")
    assert together.shared
    away = PeerPlaces(NODE, "http://127.0.0.1:9", (GATEWAY,), folder=tmp_path).open_store()
    assert isinstance(away, IpfsStore)
    cid = away.put(b"a model")
    assert away.waiting == (cid,)
    away.close()


@pytest.mark.parametrize("chain", ["nowhere", "ftp://host", "user:hunter2@host", "", "x" * 9000, "a\0b"])
def test_what_is_no_chain(chain: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--chain takes") as caught:
        PeerPlaces(chain)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match="--chain takes"):
        PeerPlaces(str(tmp_path))  # a folder


def test_secrets_of_addresses_are_not_shown() -> None:
    places = PeerPlaces("https://user:hunter2@host/v3/0123456789abcdef0123", "http://user:hunter2@host:5001")
    assert "hunter2" not in repr(places)
    assert "0123456789abcdef0123" not in repr(places)
