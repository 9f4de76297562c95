"""A contract that plays a node: it passes its owner's calls on, and does what it was told when money comes in."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from contracts.build import load_artefact
from contracts.chain import Chain
from contracts.records import Receipt
from contracts.rounds import address_of_contract

OPCODES = {
    "STOP": 0x00, "SUB": 0x03, "EQ": 0x14, "ISZERO": 0x15, "SHL": 0x1B, "CALLER": 0x33, "CALLDATALOAD": 0x35,
    "CALLDATASIZE": 0x36, "CALLDATACOPY": 0x37, "CODECOPY": 0x39, "RETURNDATASIZE": 0x3D, "RETURNDATACOPY": 0x3E,
    "MSTORE": 0x52, "SLOAD": 0x54, "SSTORE": 0x55, "JUMP": 0x56, "JUMPI": 0x57, "GAS": 0x5A, "JUMPDEST": 0x5B,
    "PUSH0": 0x5F, "DUP1": 0x80, "DUP3": 0x82, "DUP7": 0x86, "CALL": 0xF1, "RETURN": 0xF3, "REVERT": 0xFD,
}  # fmt: skip


class When(IntEnum):
    """What the puppet does when it is paid."""

    TAKE = 0
    REFUSE = 1
    REENTER = 2  # withdraw again from whoever pays, and take what there is
    REENTER_OR_FAIL = 3  # the same, and fail with it


SOURCE = f"""
CALLDATASIZE @command JUMPI
PUSH0 SLOAD
DUP1 ISZERO @take JUMPI
DUP1 0x01 EQ @refuse JUMPI
0x{keccak(text="withdraw()")[:4].hex()} 0xe0 SHL PUSH0 MSTORE
PUSH0 PUSH0 0x04 PUSH0 PUSH0 CALLER GAS CALL
0x01 SSTORE
0x03 EQ @bubble JUMPI
:take STOP
:refuse PUSH0 PUSH0 REVERT
:bubble RETURNDATASIZE PUSH0 PUSH0 RETURNDATACOPY RETURNDATASIZE PUSH0 REVERT
:command PUSH0 CALLDATALOAD DUP1 @pass JUMPI
0x20 CALLDATALOAD PUSH0 SSTORE STOP
:pass 0x40 CALLDATASIZE SUB DUP1 0x40 PUSH0 CALLDATACOPY
PUSH0 PUSH0 DUP3 PUSH0 0x20 CALLDATALOAD DUP7 GAS CALL
@done JUMPI @bubble JUMP
:done STOP
"""
"""Slot 0: what to do when paid. Slot 1: whether the last attempt to withdraw again succeeded. Calldata of a command:
whom to call (nobody: set slot 0), a word of money, the call."""


def assemble(source: str) -> bytes:
    """EVM code: `:name` a label, `@name` its place, 0x.. a push."""
    code, labels, places = bytearray(), {}, {}
    for word in source.split():
        if word.startswith(":"):
            labels[word[1:]] = len(code)
            code.append(OPCODES["JUMPDEST"])
        elif word.startswith("@"):
            code += b"\x60\x00"
            places[len(code) - 1] = word[1:]
        elif word.startswith("0x"):
            pushed = bytes.fromhex(word[2:])
            code += bytes([0x5F + len(pushed)]) + pushed
        else:
            code.append(OPCODES[word])
    for place, name in places.items():
        code[place] = labels[name]
    return bytes(code)


class Puppet:
    """A puppet and its owner."""

    def __init__(self, chain: Chain, owner: LocalAccount) -> None:
        self.chain, self.owner = chain, owner
        code = assemble(SOURCE)
        copy = assemble(f"0x{len(code):02x} DUP1 0x09 PUSH0 CODECOPY PUSH0 RETURN")
        assert len(copy) == 9
        chain._transact(owner, {"data": "0x" + (copy + code).hex(), "gas": 300_000, "value": 0}, ())
        self.address = address_of_contract(owner.address, 0)
        assert chain.code(self.address) == code

    def when_paid(self, what: When) -> None:
        self._command(bytes(32), 0, bytes(31) + bytes([what]))

    def call(self, function: Any, value: int = 0) -> Receipt:
        """Call a contract's function with so much money."""
        data = bytes.fromhex(function._encode_transaction_data().removeprefix("0x"))
        target = to_canonical_address(function.address).rjust(32, b"\x00")
        return self._command(target, value, value.to_bytes(32, "big") + data)

    def got_in_again(self) -> bool:
        return any(self.chain.w3.eth.get_storage_at(to_checksum_address(self.address), 1))

    def _command(self, target: bytes, value: int, rest: bytes) -> Receipt:
        abi: Sequence[Any] = load_artefact()["abi"]
        fields = {"to": self.address, "data": "0x" + (target + rest).hex(), "gas": 500_000, "value": value}
        return self.chain._transact(self.owner, fields, abi)
