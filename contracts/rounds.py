"""A federated task on a chain: the client of FederatedRounds.sol, in plain types.

Every write may be repeated: where the chain shows that it was done with the same content, the earlier receipt comes
back and nothing is sent. That is what lets a run that was killed go on without paying for anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from contracts.build import load_artefact
from contracts.chain import Chain
from contracts.cid import RAW, Cid, parse_cid
from contracts.errors import ContractRevert, LedgerError
from contracts.event_log import Entry, EventLog
from contracts.metrics import pack_metrics, unpack_metrics
from contracts.records import NodeRecord, Receipt, Submission, TaskSpec

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

NO_GRADE = 255
"""In a node's list of grades: none given (to oneself)."""


class FederatedRounds:
    """One task. Made by `deploy` or `attach`.

    Attributes:
        address: The contract's (checksummed).
        task: What the task was opened with.
    """

    def __init__(self, chain: Chain, address: str) -> None:
        self.chain = chain
        self.address = address
        self._contract = chain.w3.eth.contract(address=address, abi=load_artefact()["abi"])
        self._log = EventLog(chain, self._contract, int(self._view("openedAt")))
        opened = self._log.find("TaskOpened")
        if opened is None:
            raise LedgerError(f"the chain has no record of the opening of {address}.", "Does the node keep old logs?")
        self.task = TaskSpec(
            experiment=opened.args["experiment"],
            config_digest=bytes(opened.args["configDigest"]),
            data_source=opened.args["source"],
            max_rounds=int(opened.args["maxRounds"]),
            nodes=tuple(opened.args["nodes"]),
        )
        self._index = {account: i for i, account in enumerate(self.task.nodes)}

    @classmethod
    def deploy(cls, chain: Chain, account: LocalAccount, task: TaskSpec) -> FederatedRounds:
        """Open a task with an account made for it: its first transaction. If that was done already, attach.

        Raises:
            ContractRevert: the task cannot be (no nodes, too many, twice the same, no rounds).
            LedgerError: the account was used for something else, or for another task.
        """
        from eth_utils.address import to_checksum_address

        chain.wait_for_pending(account.address)
        address = address_of_first_contract(account.address)
        if not chain.code(address):
            if chain.nonce(account.address):
                raise LedgerError(f"account {account.address} was used before: a task is opened with a fresh one.")
            artefact = load_artefact()
            factory = chain.w3.eth.contract(abi=artefact["abi"], bytecode=artefact["bytecode"])
            nodes = [to_checksum_address(node) for node in task.nodes]
            chain.send(
                account,
                factory.constructor(task.config_digest, task.max_rounds, nodes, task.experiment, task.data_source),
            )
        opened = cls.attach(chain, address)
        wanted = (task.config_digest, task.max_rounds, tuple(node.lower() for node in task.nodes))
        found = opened.task
        if wanted != (found.config_digest, found.max_rounds, tuple(node.lower() for node in found.nodes)):
            raise LedgerError(
                f"the contract at {address} is of another task (config {found.config_digest.hex()[:16]})."
            )
        return opened

    @classmethod
    def attach(cls, chain: Chain, address: str) -> FederatedRounds:
        """The task at an address.

        Raises:
            LedgerError: the code there is not that of FederatedRounds.sol.
        """
        code = chain.code(address)
        if not code:
            raise LedgerError(f"there is no contract at {address} on chain {chain.chain_id}.", "Is it the right chain?")
        if _without_immutables(code) != _without_immutables(bytes.fromhex(load_artefact()["deployed_bytecode"][2:])):
            raise LedgerError(f"the contract at {address} is not this version's FederatedRounds.")
        return cls(chain, address)

    # -- writing ----------------------------------------------------------------------------------------------------

    def register(self, account: LocalAccount, exchange_key: bytes) -> Receipt:
        """Take part, with an X25519 public key (32 bytes)."""
        node = self.index_of(account.address)
        return self._once(
            account,
            self._contract.functions.register(_word(exchange_key, "an exchange key")),
            lambda: self._log.find("NodeRegistered", node=node),
            {"exchangeKey": exchange_key},
        )

    def agree_map(self, account: LocalAccount, digest: bytes | str) -> Receipt:
        """State which feature map this node computed: the SHA-256 of its file, or its CID (one block)."""
        node = self.index_of(account.address)
        if isinstance(digest, str):
            cid = parse_cid(digest)
            if cid.codec != RAW:
                raise LedgerError(f"the feature map {digest} is larger than one block of 256 KiB.")
            digest = cid.digest
        return self._once(
            account,
            self._contract.functions.agreeMap(_word(digest, "a digest")),
            lambda: self._log.find("MapProposed", node=node),
            {"digest": digest},
        )

    def submit(self, account: LocalAccount, round_: int, cid: str, metrics: Mapping[str, float]) -> Receipt:
        """Publish this node's model of a round, by its CID, with the node's own metrics."""
        node = self.index_of(account.address)
        content = parse_cid(cid).v1
        word = pack_metrics(metrics)
        return self._once(
            account,
            self._contract.functions.submit(round_, content.digest, content.codec, word),
            lambda: self._log.find("ModelSubmitted", round_=round_, node=node),
            {"digest": content.digest, "codec": content.codec, "metrics": word},
        )

    def grade(self, account: LocalAccount, round_: int, grades: Mapping[int, int]) -> Receipt:
        """Give this node's grades of a round: 0..100 for every peer, by node index."""
        node = self.index_of(account.address)
        row = bytearray([NO_GRADE] * len(self.task.nodes))
        for peer, value in grades.items():
            if not (0 <= peer < len(row) and 0 <= value < NO_GRADE):
                raise LedgerError(f"grade {value} for node {peer}: nodes are 0..{len(row) - 1}, grades 0..100.")
            row[peer] = value
        return self._once(
            account,
            self._contract.functions.grade(round_, bytes(row)),
            lambda: self._log.find("GradesGiven", round_=round_, node=node),
            {"grades": bytes(row)},
        )

    def settle(self, account: LocalAccount, round_: int) -> Receipt:
        """Close a round whose grades are all in; whoever does it, the result is the same."""
        return self._once(
            account,
            self._contract.functions.settle(round_),
            lambda: self._log.find("RoundSettled", round_=round_),
            {},
        )

    def _once(
        self, account: LocalAccount, call: Any, done: Callable[[], Entry | None], content: Mapping[str, Any]
    ) -> Receipt:
        """Send `call` unless its event is there; what is there must have the same content."""
        earlier = done()
        if earlier is None:
            try:
                receipt = self.chain.send(account, call)
            except ContractRevert:
                # What a killed process had sent may have been mined in the meantime.
                earlier = done()
                if earlier is None:
                    raise
            else:
                self._log.note_gas(receipt.tx, receipt.gas_used)
                # What was written can be read from here on, though another server may answer.
                self.chain.wait_until(done, f"the record of transaction {receipt.tx}")
                return receipt
        different = [k for k, value in content.items() if earlier.args[k] != value]
        if different:
            raise LedgerError(
                f"{earlier.name} of {account.address} is on the chain already with another {different[0]} "
                f"(transaction {earlier.tx}).",
                "It cannot be changed.",
            )
        found = self.chain.receipt(earlier.tx)
        if found is None:
            raise LedgerError(f"transaction {earlier.tx} has vanished from the chain.", "Resume the run later.")
        return found

    # -- reading ----------------------------------------------------------------------------------------------------

    def index_of(self, address: str) -> int:
        """The number of the node with this account.

        Raises:
            LedgerError: it is not on the task's allow-list.
        """
        if address not in self._index:
            raise LedgerError(f"account {address} is no node of the task {self.address}.")
        return self._index[address]

    def nodes(self) -> list[NodeRecord]:
        """The nodes that have registered, in order."""
        reputation = self.reputation()
        return [
            NodeRecord(index=i, address=account, exchange_key=bytes(key), reputation=reputation[i])
            for i, (account, key, _) in enumerate(self._view("nodes"))
            if any(key)
        ]

    def exchange_keys(self) -> dict[int, bytes]:
        """X25519 public keys of the nodes that have registered, by node index."""
        return {node.index: node.exchange_key for node in self.nodes()}

    def map_digest(self) -> bytes | None:
        """SHA-256 of the agreed feature map; None until more than two thirds stated the same."""
        digest = bytes(self._view("mapDigest"))
        return digest if any(digest) else None

    def submission(self, round_: int, node: int) -> Submission | None:
        """What a node submitted in a round."""
        entry = self._log.find("ModelSubmitted", round_=round_, node=node)
        return None if entry is None else _submission(entry)

    def submissions(self, round_: int) -> list[Submission]:
        """All submissions of a round, in the order of nodes."""
        return [_submission(entry) for entry in self._log.of_round("ModelSubmitted", round_)]

    def grades(self, round_: int) -> dict[int, dict[int, int]]:
        """The grades of a round: grader -> graded -> 0..100."""
        return {
            int(entry.args["node"]): {j: g for j, g in enumerate(entry.args["grades"]) if g != NO_GRADE}
            for entry in self._log.of_round("GradesGiven", round_)
        }

    def open_round(self) -> int:
        """The round that takes submissions and grades; 0 before the first and after the last."""
        return int(self._view("openRound"))

    def settled_rounds(self) -> int:
        """How many rounds are settled."""
        return int(self._view("settledRounds"))

    def reputation(self) -> list[int]:
        """Reputation of every node now, in hundredths of a grade (0..10000)."""
        return [int(value) for value in self._view("reputation")]

    def reputation_after(self, round_: int) -> list[int]:
        """Reputation of every node as a round's settlement left it, in hundredths of a grade.

        Raises:
            LedgerError: the round is not settled.
        """
        entry = self._log.find("RoundSettled", round_=round_)
        if entry is None:
            raise LedgerError(f"round {round_} of task {self.address} is not settled.")
        return [int(value) for value in entry.args["reputation"]]

    def gas_used(self) -> int:
        """Gas of all transactions of the task, its opening included."""
        return self._log.gas_used()

    def _view(self, name: str) -> Any:
        return self.chain.call(self._contract.get_function_by_name(name)())


def address_of_first_contract(account: str) -> str:
    """Where the contract lands that an account makes with its first transaction: keccak(rlp(account, 0))[12:]."""
    from eth_utils.address import to_canonical_address, to_checksum_address
    from eth_utils.crypto import keccak

    # RLP of a list of 22 bytes: a string of 20 bytes, and the number 0.
    return str(to_checksum_address(keccak(b"\xd6\x94" + to_canonical_address(account) + b"\x80")[12:]))


def gas_budget(nodes: int, rounds: int) -> int:
    """Gas that any one account of a task needs at most: to open it, or to take part and settle every round.

    Measured (solc 0.8.37, cancun): opening 1.54M + 46k a node, submission 106k, grades 67k (135k above 31 nodes),
    settlement 88k, 105k, 234k, 1.97M with 1, 3, 10, 50 nodes; with a margin for the estimate of the last one.
    """
    settlement = 80_000 + 13_000 * nodes + 600 * nodes**2
    return 2_500_000 + 60_000 * nodes + rounds * (180_000 + 1_300 * nodes + settlement)


def _submission(entry: Entry) -> Submission:
    return Submission(
        round=int(entry.args["round"]),
        node=int(entry.args["node"]),
        cid=str(Cid(int(entry.args["codec"]), bytes(entry.args["digest"]))),
        metrics=unpack_metrics(int(entry.args["metrics"])),
        tx=entry.tx,
        block=entry.block,
    )


def _word(value: bytes, what: str) -> bytes:
    if len(value) != 32:
        raise LedgerError(f"{what} has 32 bytes, not {len(value)}.")
    return value


def _without_immutables(code: bytes) -> bytes:
    """Code with the values that its constructor filled in taken out."""
    out = bytearray(code)
    for start, length in load_artefact()["immutables"]:
        out[start : start + length] = bytes(length)
    return bytes(out)
