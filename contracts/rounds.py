"""A federated task on a chain: the client of FederatedRounds.sol, in plain types.

Every write may be repeated: where the chain shows that it was done with the same content, the earlier receipt comes
back and nothing is sent. That is what lets a run that was killed go on without paying for anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from contracts import rlp
from contracts.build import load_artefact, same_code
from contracts.chain import Chain
from contracts.cid import RAW, parse_cid
from contracts.errors import ContractRevert, LedgerError
from contracts.event_log import Entry
from contracts.metrics import pack_metrics
from contracts.packing import commitment, pack_resources
from contracts.records import Receipt, TaskSpec
from contracts.task_log import NO_GRADE, TaskLog

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

NOTHING = bytes(32)
PAGE, SMALL_TASK = 64, 128
"""Nodes scored in one transaction, in a task of so many nodes; half as many in a larger one."""


class FederatedRounds(TaskLog):
    """One task: what its log says (TaskLog), and what an account can do in it. Made by `deploy` or `attach`."""

    @classmethod
    def deploy(cls, chain: Chain, account: LocalAccount, task: TaskSpec, *, number: int = 0) -> FederatedRounds:
        """Open a task with an account's transaction of that number. If that was done already, attach.

        Whoever writes the number down first, and gives it again after a kill, never opens twice: a chain takes one
        transaction of a number, and its number says where the contract is.

        Args:
            chain: Where to.
            account: Who opens and pays.
            task: What is opened.
            number: Of the transaction (nonce); by default the first one, of an account made for the task.

        Raises:
            ContractRevert: the task cannot be (too many nodes, twice the same, no rounds, impossible rules).
            LedgerError: the number was used for something else, or for another task.
        """
        from eth_utils.address import to_checksum_address

        chain.wait_for_pending(account.address)
        address = address_of_contract(account.address, number)
        nodes = [to_checksum_address(node) for node in task.nodes]
        if not chain.code(address):
            if number == 0 and chain.nonce(account.address):
                raise LedgerError(f"account {account.address} was used before: a task is opened with a fresh one.")
            artefact = load_artefact()
            factory = chain.w3.eth.contract(abi=artefact["abi"], bytecode=artefact["bytecode"])
            least = task.min_nodes or len(nodes) or 1
            terms = (task.config_digest, task.max_rounds, least, task.deposit, tuple(asdict(task.rules).values()))
            call = factory.constructor(terms, nodes, task.experiment, task.data_source)
            chain.send(account, call, value=task.pool, number=number)
        opened = cls.attach(chain, address)
        if not is_task(opened.task, task):
            digest = opened.task.config_digest.hex()[:16]
            raise LedgerError(f"the contract at {address} is of another task (config {digest}).")
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
        if not same_code(code):
            raise LedgerError(f"the contract at {address} is not this version's FederatedRounds.")
        return cls(chain, address)

    # -- taking part ------------------------------------------------------------------------------------------------

    def register(self, account: LocalAccount, exchange_key: bytes, signing_key: bytes | None = None) -> Receipt:
        """Take part and pay the deposit.

        Args:
            account: The node's.
            exchange_key: X25519 public key, 32 bytes.
            signing_key: SHA-256 of the ML-DSA-65 public key that it signs with; None: it signs with its account.
        """
        if self.task.nodes:
            self.index_of(account.address)
        key = NOTHING if signing_key is None else _word(signing_key, "the digest of a signing key")
        return self._once(
            account,
            self._contract.functions.register(_word(exchange_key, "an exchange key"), key),
            lambda: self._registration(account.address),
            {"exchangeKey": exchange_key, "signingKey": key},
            value=self.task.deposit,
        )

    def agree_map(self, account: LocalAccount, digest: bytes | str) -> Receipt:
        """State which feature map this node computed: the SHA-256 of its file, or its CID (one block)."""
        node = self.index_of(account.address)
        digest = _digest(digest, "the feature map")
        return self._once(
            account,
            self._contract.functions.agreeMap(_word(digest, "a digest")),
            lambda: self._log.find("MapProposed", node=node),
            {"digest": digest},
        )

    def announce(self, account: LocalAccount, topic: bytes, cid: str) -> Receipt:
        """Say where content is that others wait for; a node's first announcement of a topic counts."""
        node = self.index_of(account.address)
        content = parse_cid(cid).v1
        word = _word(topic, "a topic")

        def done() -> Entry | None:
            said = self._log.all("Announced")
            return next((e for e in said if e.args["node"] == node and e.args["topic"] == word), None)

        return self._once(
            account,
            self._contract.functions.announce(word, content.digest, content.codec),
            done,
            {"digest": content.digest, "codec": content.codec},
        )

    # -- a round ----------------------------------------------------------------------------------------------------

    def submit(
        self,
        account: LocalAccount,
        round_: int,
        cid: str,
        metrics: Mapping[str, float],
        *,
        signature: str,
        resources: Mapping[str, float] | None = None,
    ) -> Receipt:
        """Publish this node's model of a round.

        Args:
            account: The node's.
            round_: The open round.
            cid: Of the model file.
            metrics: The node's own (METRIC_NAMES).
            signature: CID of the signature file, one block.
            resources: What the model took (RESOURCE_NAMES): the node's own statement. Not compared when repeated.
        """
        node = self.index_of(account.address)
        content = parse_cid(cid).v1
        word, signed = pack_metrics(metrics), _digest(signature, "the signature")
        took = pack_resources(resources or {})
        return self._once(
            account,
            self._contract.functions.submit(round_, content.digest, content.codec, word, took, signed),
            lambda: self._log.find("ModelSubmitted", round_=round_, node=node),
            {"digest": content.digest, "codec": content.codec, "metrics": word, "signature": signed},
        )

    def commit(self, account: LocalAccount, round_: int, grades: Mapping[int, int], salt: bytes) -> Receipt:
        """Bind this node to its grades of a round: 0..100 for every peer that submitted, by node index."""
        node = self.index_of(account.address)
        bound = commitment(self.address, round_, node, salt, self._row(round_, grades))
        return self._once(
            account,
            self._contract.functions.commit(round_, bound),
            lambda: self._log.find("GradesCommitted", round_=round_, node=node),
            {"commitment": bound},
        )

    def reveal(self, account: LocalAccount, round_: int, grades: Mapping[int, int], salt: bytes) -> Receipt:
        """Show the grades that this node committed to."""
        node = self.index_of(account.address)
        row = self._row(round_, grades)
        return self._once(
            account,
            self._contract.functions.reveal(round_, row, salt),
            lambda: self._log.find("GradesRevealed", round_=round_, node=node),
            {"grades": row, "salt": salt},
        )

    def settle(self, account: LocalAccount, round_: int, *, most: int | None = None) -> Receipt:
        """Close a round, in pages of `most` nodes; whoever does it, the result is the same. The last page's receipt.

        Left to itself it takes pages that a transaction of 2^24 gas can pay: with 255 nodes 32 of them cost 14 million.
        """
        if most is None:
            most = PAGE if int(self._view("state")[5]) <= SMALL_TASK else PAGE // 2
        for _ in range(0, 256, 32):
            receipt = self._page(account, round_, most)
            if receipt is not None:
                return receipt
        raise LedgerError(f"round {round_} is not settled after all its pages.", "Resume the run later.")

    def _page(self, account: LocalAccount, round_: int, most: int) -> Receipt | None:
        pages = int(self._view("state")[6])

        def done() -> Entry | None:
            return self._log.find("RoundSettled", round_=round_)

        if (earlier := done()) is not None:
            return self._receipt_of(earlier)
        nodes = int(self._view("state")[5])
        if 32 * pages + max(32, most) >= nodes:
            return self._once(account, self._contract.functions.settle(round_, most), done, {})
        try:
            self.chain.send(account, self._contract.functions.settle(round_, most))
        except ContractRevert:
            if done() is None and int(self._view("state")[6]) == pages:
                raise
        return None

    def rollback(self, account: LocalAccount, target: int) -> Receipt:
        """Vote to go on from the models of an earlier round (0: the common start).

        Raises:
            LedgerError: the task is asynchronous, or no round is settled yet.
        """
        if self.task.rules.asynchronous:
            raise LedgerError(
                f"the task {self.address} is asynchronous: its models name the state that they started from.",
                "A rollback is for synchronous tasks.",
            )
        node = self.index_of(account.address)
        closed = self.settled_rounds()

        def done() -> Entry | None:
            votes = self._log.all("RollbackVoted", "RolledBack", "RoundSettled")
            mine = None
            for entry in votes:
                if entry.name == "RollbackVoted":
                    if entry.args["node"] == node and entry.args["target"] == target:
                        mine = entry
                elif entry.name == "RoundSettled" or entry.args["target"] != target:
                    mine = None  # a vote holds until a round closes, or the base changes
            return mine

        if closed == 0:
            raise LedgerError("no round is settled yet: there is nothing to go back to.")
        return self._once(account, self._contract.functions.rollback(target), done, {})

    # -- the end ----------------------------------------------------------------------------------------------------

    def conclude(self, account: LocalAccount, model: bytes | str, report: bytes | str) -> Receipt:
        """State the final model and the report as this node has them: by digest, or by CID (one block each)."""
        node = self.index_of(account.address)
        digests = _digest(model, "the final model"), _digest(report, "the report")
        return self._once(
            account,
            self._contract.functions.conclude(*digests),
            lambda: self._conclusions().get(node),
            {"model": digests[0], "report": digests[1]},
        )

    def abandon(self, account: LocalAccount) -> Receipt:
        """End a task that nobody carries on."""
        return self._once(account, self._contract.functions.abandon(), lambda: self._log.find("TaskEnded"), {})

    def withdraw(self, account: LocalAccount) -> Receipt:
        """Fetch what the account is owed once the task has ended."""

        def done() -> Entry | None:
            if self.owed(account.address):
                return None
            paid = [e for e in self._log.all("Withdrawn") if e.args["account"] == account.address]
            return paid[-1] if paid else None

        return self._once(account, self._contract.functions.withdraw(), done, {})

    def owed(self, address: str) -> int:
        """Wei that an account may withdraw now."""
        return int(self.chain.call(self._contract.functions.owed(address)))

    # -- sending ----------------------------------------------------------------------------------------------------

    def _row(self, round_: int, grades: Mapping[int, int]) -> bytes:
        """A node's grades as the contract takes them: one byte a node that was known when the round opened."""
        row = bytearray([NO_GRADE] * self.known_at(round_))
        for peer, value in grades.items():
            if not (0 <= peer < len(row) and 0 <= value <= 100):
                raise LedgerError(f"grade {value} for node {peer}: nodes are 0..{len(row) - 1}, grades 0..100.")
            row[peer] = value
        return bytes(row)

    def _once(
        self,
        account: LocalAccount,
        call: Any,
        done: Callable[[], Entry | None],
        content: Mapping[str, Any],
        value: int = 0,
    ) -> Receipt:
        """Send `call` unless its event is there; what is there must have the same content."""
        earlier = done()
        if earlier is not None and self.chain.receipt(earlier.tx) is None:
            # A reorganisation took it back: what this process sent is sent again, and the log read anew.
            self.chain.recheck()
            self._log.refresh()
            earlier = done()
        if earlier is None:
            try:
                receipt = self.chain.send(account, call, value=value)
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
        return self._receipt_of(earlier)

    def _receipt_of(self, entry: Entry) -> Receipt:
        found = self.chain.receipt(entry.tx)
        if found is None:
            raise LedgerError(f"transaction {entry.tx} has vanished from the chain.", "Resume the run later.")
        return found


def address_of_contract(account: str, number: int) -> str:
    """Where the contract is that an account makes with its transaction of that number: keccak(rlp(both))[12:]."""
    from eth_utils.address import to_canonical_address, to_checksum_address
    from eth_utils.crypto import keccak

    made = keccak(rlp.encode([bytes(to_canonical_address(account)), rlp.number(number)]))[12:]
    return str(to_checksum_address(made))


def gas_budget(nodes: int, rounds: int) -> int:
    """Gas that any one account of a task needs at most: to open it, or to take part and settle every round.

    From the gas table (docs/gas.md), with a margin for the estimate of the largest transaction: opening 4.8M + 46k a
    node; announcements, eight of 30k; a round 50k to submit, 100k + 1k a node to grade, and its settlement, 147k + 18k
    a node + 1.4k a pair.
    """
    return 6_400_000 + 60_000 * nodes + rounds * (180_000 + 2_000 * nodes + settling_gas(nodes))


def settling_gas(nodes: int) -> int:
    """Gas that the settlement of a round takes at most, in all its pages."""
    return 200_000 + 24_000 * nodes + 1_800 * nodes**2


REGISTER_GAS = 300_000
"""What a node asks for to register, with the margin of the estimate."""


def opening_gas(nodes: int) -> int:
    """Gas that an account must be able to pay for to open a task: the limit that it is sent with, margin included."""
    return gas_budget(nodes, 0) + 1_000_000


def taking_part_gas(nodes: int, rounds: int) -> int:
    """Gas that a node needs at most from registering to withdrawing, though it settled every round itself."""
    return gas_budget(nodes, rounds) - gas_budget(nodes, 0) + 1_000_000


def is_task(opened: TaskSpec, task: TaskSpec) -> bool:
    """Whether what was opened is this task: spelling of addresses and a default left open make no difference."""
    nodes = [node.lower() for node in task.nodes] == [node.lower() for node in opened.nodes]
    least = task.min_nodes in (0, opened.min_nodes)
    return nodes and least and opened == replace(task, nodes=opened.nodes, min_nodes=opened.min_nodes)


def _digest(value: bytes | str, what: str) -> bytes:
    if isinstance(value, bytes):
        return _word(value, f"the digest of {what}")
    cid = parse_cid(value)
    if cid.codec != RAW:
        raise LedgerError(f"{what} {value} is larger than one block of 256 KiB.")
    return cid.digest


def _word(value: bytes, what: str) -> bytes:
    if len(value) != 32:
        raise LedgerError(f"{what} has 32 bytes, not {len(value)}.")
    return value
