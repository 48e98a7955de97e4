"""Reads dashboards into the types of grafana-foundation-sdk, writes them back, and prints the differences."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(path, before, after):
    """The places where two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            there = f"{path}.{name}"
            if name not in after:
                yield f"{there}: not in the schema"
            elif name not in before:
                yield f"{there}: wanted by the schema, as {json.dumps(after[name])}"
            else:
                yield from differences(there, before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, pair in enumerate(zip(before, after)):
            yield from differences(f"{path}[{at}]", *pair)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield f"{path}: {json.dumps(before)} came back as {json.dumps(after)}"


register_default_plugins()
failed = False
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        text = json.load(file)
    back = json.loads(json.dumps(Dashboard.from_json(text), cls=JSONEncoder))
    for difference in differences("", text, back):
        failed = True
        print(f"{name}{difference}", file=sys.stderr)
sys.exit(failed)
