"""What is installed for agentrl itself: plugins, environments with a virtual environment of their own, models."""

from __future__ import annotations

from agentrl.doctor.probe import Finding, Probe
from agentrl.plugins import Host


def installed_probes(host: Host) -> list[Probe]:
    """A probe of its own for each broken plugin and each part that lacks something."""
    probes = [Probe("plugins", lambda: _plugins(host), "", "agentrl list plugins")]
    for entry in host.entries():
        if entry.state == "ok":
            continue
        finding = Finding(entry.state, f"{entry.distribution}: {entry.detail}")
        what = "what it registers" if entry.kind == "plugins" else f"{entry.kind.replace('_', ' ')}: {entry.name}"
        fix = entry.install or f"fix or uninstall {entry.distribution}"
        probes.append(Probe(f"plugin {entry.name}", lambda finding=finding: finding, what, fix))  # type: ignore[misc]
    return [*probes, Probe("models", models, "models by name", "agentrl models get NAME")]


def models() -> Finding:
    from agentrl.models import KNOWN, models_folder

    here = [name for name in KNOWN if (models_folder() / name).is_dir()]
    away = [name for name in KNOWN if name not in here]
    told = f"here: {', '.join(here) or 'none'}" + (f"; not fetched: {', '.join(away)}" if away else "")
    return Finding("ok" if here else "missing", told)


def _plugins(host: Host) -> Finding:
    plugins = host.entries("plugins")
    well = [entry for entry in plugins if entry.state == "ok"]
    parts = sum(1 for entry in host.entries() if entry.kind != "plugins")
    told = f"{len(well)} of {len(plugins)} load, with {parts} parts"
    return Finding("ok" if len(well) == len(plugins) else "broken", told)
