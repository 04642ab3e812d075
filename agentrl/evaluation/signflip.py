"""The sign-flip test: were the differences as large as they are if each were as likely with the other sign?

Exact where the differences lie on a lattice, as those of counted attempts do; else seeded draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST_WORK = 50_000_000
"Additions that the exact distribution may take; a tenth of a second."
DRAWS, AT_ONCE = 20_000, 500


def sign_flip_p(differences: Doubles, lattice: int | None) -> float:
    """Two-sided mid-p value of the sum of `differences` [tasks] under random signs (Fisher 1935).

    `lattice` is a number that makes each difference whole, or None. At one 0-or-1 attempt per task this is McNemar's
    mid-p test, whose error of the first kind stays closer to the level than that of the exact test (Fagerland,
    Lydersen & Laake 2013). The differences are taken to be symmetric where nothing changed, which they are where
    both results have as many attempts at a task, and nearly so otherwise.
    """
    if lattice is not None:
        units = np.rint(np.abs(differences) * lattice).astype(np.int64)
        units = units[units > 0]
        if len(units) * int(units.sum()) <= MOST_WORK:
            return _exact(units, abs(int(np.rint(differences * lattice).astype(np.int64).sum())))
    return _drawn(differences)


def _exact(units: Whole, observed: int) -> float:
    """From the distribution of the sum of plus or minus each unit."""
    if observed == 0:
        return 1.0
    total = int(units.sum())
    # The chance of each number of units with a plus; the sum of the signed units is 2 plus - total.
    plus = np.zeros(total + 1)
    plus[0] = 1.0
    for unit in units:
        shifted = np.zeros_like(plus)
        shifted[unit:] = plus[:-unit]
        plus = (plus + shifted) / 2
    least = (total + observed) // 2
    return float(min(1.0, 2 * plus[least + 1 :].sum() + plus[least]))


def _drawn(differences: Doubles) -> float:
    observed = abs(float(differences.sum()))
    if observed == 0.0:
        return 1.0
    rng = np.random.default_rng(0)
    flips = (2.0 * rng.integers(0, 2, (AT_ONCE, len(differences))) - 1.0 for _ in range(DRAWS // AT_ONCE))
    sums = np.concatenate([np.abs(signs @ differences) for signs in flips])
    near = np.isclose(sums, observed, rtol=1e-9)
    extreme = float(((sums > observed) & ~near).sum() + near.sum() / 2)
    return min(1.0, (extreme + 1) / (DRAWS + 1))
