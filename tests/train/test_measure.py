"""The energy meter, on counters that the tests write as Linux does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from itopctl.train.measure import EnergyMeter

CPU = torch.device("cpu")


def counter(folder: Path, name: str, microjoules: int, most: int = 10_000_000) -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_energy_is_the_sum_over_packages_without_their_parts(tmp_path: Path) -> None:
    first, second = (counter(tmp_path, f"intel-rapl:{n}", 1_000_000) for n in range(2))
    part = counter(tmp_path, "intel-rapl:0:0", 0)
    meter = EnergyMeter(CPU, tmp_path)
    assert meter.joules == 0.0
    first.write_text("3500000\n")
    second.write_text("1250000\n")
    part.write_text("9000000\n")
    assert meter.joules == pytest.approx(2.75)


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    energy = counter(tmp_path, "intel-rapl:0", 9_000_000)
    meter = EnergyMeter(CPU, tmp_path)
    for now in (9_900_000, 400_000, 1_000_000):
        energy.write_text(f"{now}\n")
        meter.read()
    assert meter.joules == pytest.approx(2.0)


@pytest.mark.parametrize("spoil", ["nothing there", "no number", "gone later"])
def test_a_device_that_does_not_tell_has_no_energy(tmp_path: Path, spoil: str) -> None:
    if spoil != "nothing there":
        energy = counter(tmp_path, "intel-rapl:0", 5)
        if spoil == "no number":
            energy.write_text("n/a")
    meter = EnergyMeter(CPU, tmp_path)
    if spoil == "gone later":
        assert meter.joules == 0.0
        energy.unlink()
    assert meter.joules is None
