"""Every reason that a condition can bear is explained, and nothing else is."""

import re
from pathlib import Path

from overspill.autoscaler import health
from overspill.autoscaler.readings import Outage
from overspill.controller.reasons import EngineReason, Reason
from overspill.engine import base, errors
from overspill.engine.fetch import errors as fetch_errors
from overspill.engine.fetch import store
from overspill.providers.base import Fault

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
PACKAGE = ROOT / "operator/overspill"
# Read from the code that spells them: the gateway's verdict on a provider's Secret.
SECRET_REASONS = re.compile(r'"(Secret[A-Z][A-Za-z]+)"')


def leaves(kind: type[errors.EngineError]) -> set[str]:
    """Names of the faults below one that have none below themselves."""
    below = kind.__subclasses__()
    return set().union(*map(leaves, below)) if below else {kind.__name__}


def scaling_reasons() -> set[str]:
    outages = (None, Outage(since=0.0, message="gone"))
    return {
        health.judge(
            outage=outage, asked=True, complete=complete, known=False, age=age, replicas=1
        ).reason
        for outage in outages
        for complete in (True, False)
        for age in (0.0, 1e6)
    }


def known() -> set[str]:
    files = [*(PACKAGE / "gateway").glob("*.py")]
    secrets = {name for f in files for name in SECRET_REASONS.findall(f.read_text())}
    assert len(secrets) >= 5
    return {*Reason, *EngineReason, *Fault, *secrets, *scaling_reasons()}


def test_the_operator_knows_every_reason_with_which_our_engine_ends_and_no_other() -> None:
    assert {base, fetch_errors, store}  # their faults exist once they are imported
    assert leaves(errors.EngineError) == set(EngineReason)


def test_each_reason_is_explained_and_each_explained_one_exists() -> None:
    rows = re.findall(r"^\| `([A-Za-z]+)` \|", PAGE, re.MULTILINE)
    last = PAGE.rpartition("\n## ")[2]
    explained = {*rows, *re.findall(r"`([A-Z][A-Za-z]+)`", last)}
    assert explained == known()
    assert len(rows) == len(set(rows)), "explained twice"
