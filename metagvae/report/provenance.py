"""Where a run and its report came from: the exact commands, versions, and the whole config."""

from __future__ import annotations

from typing import Any

from episodes.untrusted.plain_files import yaml_text
from metagvae.report.material import Material
from metagvae.report.section import readable
from metagvae.runs.run import provenance

LABELS = {
    "command": "command",
    "commit": "commit",
    "metagvae": "metagvae",
    "torch": "torch",
    "python": "Python",
    "threads": "threads",
    "processes": "processes",
    "precision": "precision",
}
UNKNOWN = "not noted"


def flat(config: dict[str, Any], above: str = "") -> dict[str, str]:
    """Settings by their full name, such as ``optim.steps``."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = str(value)
    return found


def config_text(config: dict[str, Any]) -> str:
    """A run's config as the YAML that the command which trains takes."""
    given = {key: value for key, value in config.items() if key not in ("kind", "attributes")}
    text = yaml_text(given)
    return "\n".join(readable(line, 400) for line in text.splitlines())


def provenance_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: a column per run, one for this report, and the settings, of several runs those that differ."""
    here = provenance()
    columns = [*(run.made_by for run in runs), here]
    settings = [flat(run.config) for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    differing = [
        {"name": readable(name), "values": [readable(one.get(name, "–"), 200) for one in settings]}
        for name in names
        if len({one.get(name) for one in settings}) > 1
    ]
    return {
        "commands": [
            *((readable(run.name), readable(run.made_by.get("command", UNKNOWN), 2000)) for run in runs),
            ("this report", readable(here["command"], 2000)),
        ],
        "heads": [*(readable(run.name) for run in runs), "this report"],
        "rows": [
            {"name": label, "values": [readable(column.get(key) or UNKNOWN) for column in columns]}
            for key, label in LABELS.items()
            if key != "command" and any(column.get(key) for column in columns)
        ],
        "configs": [(readable(run.name), run.config["kind"], config_text(run.config)) for run in runs],
        "differing": differing,
    }
