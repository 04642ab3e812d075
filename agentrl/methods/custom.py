"""A method put together in the recipe from credit rules and a loss by name: ours or a plugin's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agentrl.credit.rules import AnchorCredit, WeightedSum
from agentrl.errors import ConfigError
from agentrl.method import AggregationName, Method, Needs, Proximal, aggregate_by
from agentrl.plugins import Host

if TYPE_CHECKING:
    from agentrl.losses.objective import Objective


def custom(
    *,
    host: Host,
    credit: list[dict[str, Any]],
    loss: dict[str, Any] | None = None,
    aggregate: AggregationName = "token_mean",
    proximal: Proximal = "behavior",
) -> Method:
    """Weighted credit rules and one loss: `credit = [{name = "episode"}, {name = "anchor", weight = 0.5}]`.

    `agentrl list credit_rules` and `agentrl list losses` show the names; every other key is the part's own option.
    """
    if not credit:
        raise ConfigError("[method] credit is empty; name at least one rule, such as {name = 'episode'}.")
    terms = []
    for place, entry in enumerate(credit):
        where = f"[method] credit.{place}"
        rule = host.create("credit_rules", _name(entry, where), _options(entry), where=where)
        terms.append((float(entry.get("weight", 1.0)), rule))
    chosen = {"name": "clipped"} if loss is None else loss
    objective = partial(_objective, host, _name(chosen, "[method] loss"), _options(chosen), proximal)
    needs = Needs(anchors=any(isinstance(rule, AnchorCredit) for _, rule in terms))
    return Method("custom", WeightedSum(tuple(terms)), aggregate_by(aggregate), objective, needs=needs)


def _objective(host: Host, name: str, options: dict[str, Any], proximal: Proximal) -> Objective:
    from agentrl.losses.objective import Objective, token_ratio

    surrogate = host.create("losses", name, options, where="[method] loss")
    return Objective(token_ratio, surrogate, proximal=proximal)


def _name(entry: dict[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where} has no name; write {{name = '...'}}.")
    return name


def _options(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("name", "weight")}
