"""What a run would have cost with hindsight: the exact offline optimum.

``f_t(n)``, the least cost up to tick t with n replicas in it, follows from f_{t−1}: replicas that
stop are free, each that starts costs its boot. Replicas fill one after another, so cost and
recursion fall apart into one question for each count: is the n-th replica on or off? Its answer
needs one number, the cost of on over off, which starts and stops keep between 0 and a boot. The
answers fit together, because the n-th replica is never busier than the one before it.
"""

import math
from collections.abc import Sequence

from overspill.simulator.fluid import Setting


def optimum(load: Sequence[float], setting: Setting, initial: int) -> float:
    """Return the least cost in USD.

    :param load: offered requests/s over one replica's capacity, by tick.
    :param initial: replicas that are ready at the start, free of a boot.
    """
    levels = max(initial, math.ceil(max(load, default=0.0)))
    boot, ratio = float(setting.boot_ticks), setting.ratio
    on_over_off = [0.0 if n < initial else boot for n in range(levels)]
    total = 0.0  # in replica-ticks, with every replica off
    active = levels  # those above have been of no use for so long that off is certain
    for offered in load:
        total += ratio * offered
        active = max(active, min(levels, math.ceil(offered)))
        for n in range(active):
            busy = offered - n
            saving = ratio * (1.0 if busy > 1.0 else busy if busy > 0.0 else 0.0) - 1.0
            before = on_over_off[n]
            over = before - saving
            # Cost of on over off, kept within what a start or a stop would cost.
            if over > boot:
                over = boot
            elif over < 0.0:
                total += over  # off follows on: the saving counts for both
                over = 0.0
            on_over_off[n] = over
        while active and on_over_off[active - 1] >= boot and active > offered:
            active -= 1
    return setting.tick_cost * total
