"""How a peer comes to the feature map: by sums with the others, or, where these have agreed already, from the store."""

from __future__ import annotations

from dataclasses import dataclass

from circuits.errors import QrunError
from contracts.cid import RAW, Cid
from contracts.errors import ContentError
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from contracts.store import ContentStore
from experiments.base import NodeShare
from experiments.features.agreement import agree, node
from experiments.features.fit import suits
from experiments.features.map import FeatureMap
from runner.config import RunConfig
from runner.contribution import Member
from runner.federation import put_config_and_map
from runner.peers.publish import with_the_others
from runner.peers.sums import AnnouncedSum, LeftOut
from runner.peers.watch import Watch
from runner.progress import Reporter
from runner.update import MAX_BYTES


@dataclass(frozen=True)
class Agreement:
    """How the peer agrees with the others.

    Attributes:
        config: The run's.
        contract: Its task.
        store: Where files are.
        watch: How others are waited for.
        reporter: Told of what happens.
    """

    config: RunConfig
    contract: FederatedRounds
    store: ContentStore
    watch: Watch
    reporter: Reporter

    def settle(self, member: Member, share: NodeShare, sums: AnnouncedSum) -> tuple[FeatureMap, str]:
        """The agreed map and its CID, once more than two thirds of the nodes have stated it.

        Args:
            member: This node.
            share: Its records.
            sums: Among the nodes that were there when the task began.

        Raises:
            QrunError: the task ended without, or the agreed map cannot be read.
            Stopped: the process is to end.
        """
        if not self._agreed() and member.index in sums.roster:
            try:
                self._propose(member, share, sums)
            except LeftOut as late:
                self.reporter.notice("Feature map", late.message)
        self.watch.until("the nodes' votes on the feature map", self._agreed)
        return self._fetch()

    def _propose(self, member: Member, share: NodeShare, sums: AnnouncedSum) -> None:
        """Make the map with the others, and vote for it if it describes this node's own records."""
        made = agree([node(share.train)], self.config.model.features, sums)
        rule = self.config.federation
        cid = put_config_and_map(self.config, made, self.store)
        with_the_others(self.store, self.watch)
        if suits(made, share.train, least_variance=rule.map_variance, most_shift=rule.map_shift):
            self.watch.ask(lambda: self.contract.agree_map(member.account, cid))
        else:
            self.reporter.notice("Feature map", "It does not describe this node's records: no vote for it.")

    def _agreed(self) -> bool:
        if self.contract.map_digest() is not None:
            return True
        if self.contract.phase() is Phase.ENDED:
            raise QrunError("the task has ended before its nodes agreed on a feature map.", "Open another one.")
        return False

    def _fetch(self) -> tuple[FeatureMap, str]:
        """The map that was agreed, whoever made it: hostile until it is one, of the model's width."""
        digest = self.watch.ask(self.contract.map_digest)
        assert digest is not None
        cid = str(Cid(RAW, digest))
        data: list[bytes] = []

        def fetch() -> bool:
            try:
                data.append(self.store.get(cid, max_bytes=MAX_BYTES))
            except ContentError:
                return False
            return True

        self.watch.until(f"the agreed feature map ({cid})", fetch)
        found = FeatureMap.from_bytes(data[0])
        if len(found.low) != self.config.model.features:
            raise QrunError(
                f"the agreed feature map gives {len(found.low)} features, and the model has "
                f"{self.config.model.features}.",
                "The task cannot be played; its nodes have agreed on something else.",
            )
        return found, cid
