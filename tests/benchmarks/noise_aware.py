"""What the noise-aware term does: `python -m tests.benchmarks.noise_aware [SEEDS [QUBITS]]`, on the official data.

One node trains the generator against its discriminator for five rounds of the default length, on the exact twin, with
the infidelity weights W = 0 (off), 1, 5 and 50. By device and weight, means over the seeds and their standard
deviation: the expected infidelity of the compiled circuit by its echo, the mean distance of <Z_i> from the ideal
values at the same angles, and the AUROC of the hold-out part. Then what of the infidelity is readout error, which no
angle changes, and the size of the two gradients at the start of the training: that of the generator's own loss, and
that of the infidelity at W = 1.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from backends.catalog import get_target
from backends.layer import ExpectationLayer
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from circuits.echo import infidelity
from experiments.models.qgan import BIAS, QGAN, WEIGHT, Parameters
from experiments.settings import DataSettings, ModelSettings
from runner.attack.world import World
from runner.config import RunConfig
from runner.seeds import derive
from runner.update import dequantise, quantise

DEVICES = ("fake_kyiv", "fake_torino")
WEIGHTS = (None, 1.0, 5.0, 50.0)
ROUNDS = 5
LATENTS = 256


def model_of(world: World, weight: float | None) -> QGAN:
    """The world's model with another weight."""
    settings = world.config.model.model_copy(update={"infidelity_weight": weight})
    return QGAN(settings, world.model.executor, world.model.circuit)


def distance(model: QGAN, parameters: Parameters) -> float:
    """Mean |<P> on the device - <P> without noise| over the strings of Z that are measured, at the same angles."""
    asked: Request = model.request(parameters, LATENTS, 1)
    noisy = model.executor.run([asked])[0].values
    return float(np.abs(noisy - TwinExecutor(get_target("ideal")).run([asked])[0].values).mean())


def gradients(world: World) -> tuple[float, float, float]:
    """What of the infidelity is readout error of qubits in 0, and the norms of two gradients at the common start.

    Those of L_G without the energy distance, and of the infidelity, by the angles.
    """
    model, start = model_of(world, 1.0), dequantise(world.start)
    layer = ExpectationLayer(model.executor, model.circuit, model.observables, further=(model.echo,))
    tensors = {name: torch.tensor(value, dtype=model.dtype) for name, value in start.items()}
    angles = tensors.pop("generator").requires_grad_(True)
    latents = torch.tensor(model.request(start, LATENTS, 1).inputs, dtype=model.dtype)
    values = layer(latents, angles)
    samples = torch.nn.functional.linear(values[:, : len(model.observables)], tensors[WEIGHT], tensors[BIAS])
    loss = torch.nn.functional.softplus(-model._logit(tensors, samples)).mean()
    own, lost = (torch.autograd.grad(each, angles, retain_graph=True)[0] for each in (loss, infidelity(values[:, -1:])))
    target, circuit = get_target(world.config.backend), model.circuit
    qubits = [circuit.physical_qubits[wire] for wire in circuit.initial_layout]
    floor = np.mean([target.readout_errors(qubit)[0] for qubit in qubits]) / 2
    return float(floor), float(own.norm()), float(lost.norm())


def main(seeds: int = 5, qubits: int = 4) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    folder = Path(os.environ["QRUN_DATA"]) if "QRUN_DATA" in os.environ else None
    slopes: dict[str, list[tuple[float, float, float]]] = {}
    print("| device | W | infidelity | distance from ideal | hold-out AUROC |\n|---|---|---|---|---|")
    for device in DEVICES:
        rows: dict[float | None, list[tuple[float, float, float]]] = {weight: [] for weight in WEIGHTS}
        for seed in range(seeds):
            config = RunConfig(
                experiment="nsl-kdd",
                backend=device,
                nodes=1,
                seed=seed,
                data=DataSettings(test=False),
                model=ModelSettings(qubits=qubits),
            )
            world = World.build(config, folder)
            slopes.setdefault(device, []).append(gradients(world))
            for weight in WEIGHTS:
                model = model_of(world, weight)
                trained = model.train(
                    dequantise(world.start), world.features[0][0], epochs=ROUNDS, seed=derive(seed, "train") % 2**31
                ).parameters
                auroc = replace(world, model=model).auroc(quantise(trained), [0])
                rows[weight].append((model.infidelity(trained, LATENTS, 1), distance(model, trained), auroc))
                print(device, seed, weight, rows[weight][-1], file=sys.stderr, flush=True)
        for weight, found in rows.items():
            mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
            cells = " | ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(mean, spread, strict=True))
            print(f"| {device} | {0 if weight is None else weight:g} | {cells} |", flush=True)
    for device, each in slopes.items():
        floor, own, lost = np.mean(each, axis=0)
        print(f"\n{device}: {floor:.4f} is readout; |grad L_G| = {own:.4f}, |grad I| = {lost:.4f} at the start")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
