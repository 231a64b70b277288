"""Many services, one full pool: what a day costs, against the optimum of them all with hindsight.

    make bench-pool
    python3 bench/pool.py --scenes 10

Each scene is drawn from its number: two to five services with replicas of 1, 2 or 4 accelerators, a
cloud 1.5 to 5 times as dear as a busy replica, a day of waves, steps and noise, and a pool that has
room for 35 to 70 % of the sum of their peaks. Costs are over the optimum's: ours, and that of who
comes first keeping the place. Writes build/bench/pool.json.
"""

import argparse
import json
import random
from pathlib import Path

from overspill.simulator.fluid import Setting
from overspill.simulator.shared import SharedPool, Tenant, day, optimum

RESULT = Path(__file__).parents[1] / "build" / "bench" / "pool.json"
SETTING = Setting(tick=60.0)
MOST = 10  # accelerators: the optimum looks at every division of them


def scene(number: int) -> tuple[list[Tenant], int]:
    """Return the services of a scene, and the accelerators of their pool."""
    generator = random.Random(number)
    count = generator.randint(2, 5)
    tenants = [
        Tenant(
            generator.choice([1, 1, 2, 4]),
            generator.choice([1.5, 2.0, 3.0, 5.0]),
            day(generator, SETTING, generator.uniform(1.0, 4.0)),
        )
        for _ in range(count)
    ]
    peaks = sum(t.size * max(t.load) for t in tenants)
    largest = max(t.size for t in tenants)
    return tenants, max(largest, min(MOST, round(peaks * generator.uniform(0.35, 0.7))))


def run(number: int) -> dict[str, object]:
    """Run one scene."""
    tenants, room = scene(number)
    best = optimum(tenants, room, SETTING)
    ours = SharedPool(tenants, room, SETTING)
    first = SharedPool(tenants, room, SETTING, shared=False)
    return {
        "scene": number,
        "accelerators": room,
        "sizes": [t.size for t in tenants],
        "price_ratios": [t.ratio for t in tenants],
        "optimum": round(best, 2),
        "overspill": round(ours.run() / best, 4),
        "first_come": round(first.run() / best, 4),
        "stops": ours.moves,
    }


def main() -> None:
    """Run the scenes and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=10)
    rows = []
    for number in range(parser.parse_args().scenes):
        rows.append(run(number))
        print(json.dumps(rows[-1]), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
