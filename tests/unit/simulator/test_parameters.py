"""Files of latency models: the bundled ones, what calibrate writes, and what is refused."""

from pathlib import Path

import pytest

from overspill.simulator.calibration import Fit
from overspill.simulator.engine import LatencyModel
from overspill.simulator.parameters import Parameters, ParametersError, load, names


@pytest.mark.parametrize("name", names())
def test_a_bundled_set_says_where_it_is_from(name: str) -> None:
    found = load(name)
    assert found.source
    assert (found.residuals is None) == ("not measured by us" in found.source)


def test_a_fit_is_read_as_it_was_written(tmp_path: Path) -> None:
    fit = Fit(LatencyModel(4e-3, 1.23456e-7, 0.0), LatencyModel(1e-5, 1e-9, 0.0), 0.12345, 0.01)
    written = Parameters.of(fit, "A machine: 2 × “cores”")
    file = tmp_path / "engine.yaml"
    file.write_text(written.text(), encoding="utf-8")
    assert load(str(file)) == written
    assert written.model == LatencyModel(4e-3, 1.235e-7, 0.0)
    file.write_text(written.model_dump_json())
    assert load(str(file)) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 1\nbeta: 0", "gamma: Field required"),
        ("{alpha: 1, beta: -1, gamma: 0}", "beta: Input should be greater than or equal to 0"),
        ("{alpha: .nan, beta: 0, gamma: 0}", "alpha: Input should be a finite number"),
        ("{alpha: 0, beta: 0, gamma: 0}", "must be more than 0"),
        ("{alpha: 1, beta: 0, gamma: 0, delta: 1}", "delta: Extra inputs"),
        ("- 1", "should be a valid dictionary"),
        ("{", "no YAML"),
        ("x" * 70_000, "larger than 65536 bytes"),
        ("!!python/object/apply:os.getpid []", "no YAML"),
    ],
)
def test_a_wrong_file_is_named_with_the_field(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(text)
    with pytest.raises(ParametersError, match=message) as caught:
        load(str(file))
    assert str(file) in str(caught.value)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ParametersError, match="magic is neither a file nor one of: gpu"):
        load("magic")
