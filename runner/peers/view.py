"""Tasks shown: terms, nodes, rounds, deadlines. Texts come from others, and are shown harmlessly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from contracts.funding import ether
from runner.peers.clock import in_words, until
from runner.tables import emit, short, show_table, stdout, table_of


def plain(text: object) -> str:
    """A text from outside, without what a terminal would act on, and not without end."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def show_terms(title: str, terms: Mapping[str, Any]) -> None:
    """What whoever takes part agrees to."""
    show_table(title, ["what", "value"], terms_rows(terms))


def terms_rows(terms: Mapping[str, Any]) -> list[list[str]]:
    """The terms, a line each."""
    rows = [["experiment", f"{plain(terms['experiment'])} on {plain(terms['data_source'])} data"]]
    config, rules = terms["config"], terms["rules"]
    if config is not None:
        model = config["model"]
        rows += [
            ["device", f"{plain(config['backend'])}, {_engine(config)}"],
            ["model", f"{model['qubits']} qubits, {model['reps']} repetitions; epochs a round: {model['epochs']}"],
            ["seed", str(config["seed"])],
            ["joined by", config["federation"]["aggregation"]],
            ["signed with", config["federation"]["signatures"]],
        ]
        if config.get("mitigation") is not None:
            rows.append(["mitigation", plain(config["mitigation"]["stack"])])
    who = "anybody who pays the deposit" if terms["open"] else "those of a list"
    most = "" if terms["nodes"] is None else f" of {terms['nodes']}"
    rows += [
        ["rounds", str(terms["rounds"])],
        ["schedule", _schedule(terms)],
        ["nodes", f"{who}; begins with {terms['min_nodes']}{most}"],
        ["deposit", ether(terms["deposit"])],
        ["pool of rewards", ether(terms["pool"])],
        ["deadlines", ", ".join(f"{name} {_length(rules[f'{name}_seconds'])}" for name in _PHASES)],
        ["abandoned after", f"{_length(rules['setup_seconds'])} in which it does not go on"],
        ["config digest", terms["config_digest"]],
        ["config CID", terms["config_cid"]],
    ]
    return rows


_PHASES = ("submit", "commit", "reveal")


def _engine(config: Mapping[str, Any]) -> str:
    """engine twin, 1024 shots, with idle noise, on cuda."""
    parts = [f"engine {config['engine']}"]
    parts += [] if config["shots"] is None else [f"{config['shots']} shots"]
    parts += ["with idle noise"] if config["idle_noise"] else []
    parts += [] if config["device"] == "auto" else [f"on {config['device']}"]
    return ", ".join(parts)


def _schedule(terms: Mapping[str, Any]) -> str:
    if terms["schedule"] == "sync":
        return "sync: all nodes in step"
    rules = terms["rules"]
    return f"async: windows of {_length(rules['window_seconds'])}, {rules['quorum']} graders at least"


def _length(seconds: int) -> str:
    """A length of time: 7 d, 1 h 30 min."""
    return until(seconds, 0).removeprefix("in ").removesuffix(" ago") if seconds else "none"


def show_task(told: Mapping[str, Any]) -> None:
    """A task as the chain has it."""
    now = told["chain"]["time"]
    rows = [
        ["chain", f"{told['chain']['kind']}, id {told['chain']['id']}, block {told['chain']['head']}"],
        ["chain's time", in_words(now)],
        ["opened", f"block {told['opened']['block']}, {_when(told['opened']['time'], now)}"],
        *terms_rows(told["terms"]),
        ["feature map", told["feature_map_digest"] or "not agreed yet"],
        ["phase", _phase(told)],
        *([f"  {name}", _when(when, now)] for name, when in _ends(told)),
        ["rounds closed", f"{told['settled_rounds']} of {told['terms']['rounds']}"],
    ]
    if told["account"] is not None:
        rows.append(["owed", f"{ether(told['account']['owed'])} to {told['account']['address']}"])
    show_table(f"Task {told['task']}", ["what", "value"], rows)
    _show_nodes(told["nodes"], now)
    _show_rounds(told["rounds"])


def _phase(told: Mapping[str, Any]) -> str:
    if told["phase"] == "ended":
        return "ended: abandoned" if told["abandoned"] else "ended"
    return told["phase"] + (f", round {told['open_round']}" if told["open_round"] else "")


def _ends(told: Mapping[str, Any]) -> list[tuple[str, int]]:
    words = {"submit": "models until", "commit": "commitments until", "reveal": "grades until"}
    words["abandon"] = "may be abandoned"
    return [(words[name], when) for name, when in told["deadlines"].items() if when is not None]


def _when(when: int, now: int) -> str:
    return f"{in_words(when)} ({until(when, now)})"


def _show_nodes(nodes: Sequence[Mapping[str, Any]], now: int) -> None:
    table = table_of("Nodes", ["node", "address", "state", "reputation", "models", "last seen"], numeric=(3, 4))
    for n in nodes:
        seen = "-" if n["last_seen"] is None else until(n["last_seen"]["time"], now)
        style = "red" if n["excluded"] else None if n["registered"] else "dim"
        row = [str(n["id"]), n["address"], _state(n), f"{n['reputation']:.1f}", str(n["submissions"]), seen]
        table.add_row(*(Text(cell) for cell in row), style=style)
    emit(table)


def _state(node: Mapping[str, Any]) -> str:
    if node["excluded"]:
        return "excluded"
    if not node["registered"]:
        return "not registered"
    return node["this_round"] or ("active" if node["active"] else "registered")


def _show_rounds(rounds: Sequence[Mapping[str, Any]]) -> None:
    if not rounds:
        return
    wide = stdout().width >= 100
    heads = ["round", "state", "from", "models", "absent", "settlement", "reputation"]
    table = table_of("Rounds", [*heads, *(["transaction"] if wide else [])], numeric=(0, 3))
    for r in rounds:
        verdict = r["settlement"]
        said, reputation, tx = "-", "-", "-"
        if verdict is not None:
            out = "".join(f", excludes {node}" for node in verdict["excluded"])
            said = ("strong" if verdict["strong"] else "weak") + out
            reputation = " ".join(f"{node}:{value:.0f}" for node, value in verdict["reputation"].items())
            tx = short(verdict["tx"])
        absent = " ".join(str(node) for node in r["absent"]) or "-"
        row = [str(r["number"]), r["state"], str(r["base"] or "start"), str(len(r["nodes"])), absent, said, reputation]
        table.add_row(*(Text(cell) for cell in [*row, *([tx] if wide else [])]))
    emit(table)
