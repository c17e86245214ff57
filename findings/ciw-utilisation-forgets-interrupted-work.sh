#!/usr/bin/env bash
# Ciw 3.2.7 (PyPI; a simulator of queueing networks): the utilisation that it reports leaves out all work that a more urgent
# customer interrupted. A server counts as busy from the latest start of a service to its end alone, and what was done
# before the interruption is idle time. All customers' records are right, and say that the server was busy.
#
# So preemptive priorities seem to cost a server less than ones that wait, with "resume" less than half, and "restart",
# which does the same work twice, as much. A server that is sized by this utilisation is too small.
#
# Seen with Python 3.11 on 2026-11-30, for a customer at 1 who needs the server for 10, an urgent one at 9 for 1, and an end
# at 25: the share of time with a customer at the only server, and the utilisation:
#   the urgent one waits: 0.44, 0.44
#   resume: 0.44, 0.12
#   restart: 0.76, 0.44
#   resample: 0.76, 0.44
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ciw==3.2.7
"$folder/venv/bin/python" - <<'PYTHON'
import ciw
from ciw.dists import Deterministic, Sequential

END, LATER = 25, 1000


def told(preemption: str | bool) -> str:
    """The share of time with a customer at the server, by the customers' records, and the utilisation."""
    network = ciw.create_network(
        arrival_distributions={"urgent": [Sequential([9, LATER])], "other": [Sequential([1, LATER])]},
        service_distributions={"urgent": [Deterministic(1)], "other": [Deterministic(10)]},
        number_of_servers=[1],
        priority_classes=({"urgent": 0, "other": 1}, [preemption]),
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(END)
    records = simulation.get_all_records(only=["service", "interrupted service"])
    stays = [(record.service_start_date, record.exit_date) for record in records]
    assert len({start for start, _ in stays}) == len(stays), "two services at once"
    busy = sum(end - start for start, end in stays)
    return f"{busy / END:.2f}, {simulation.nodes[1].server_utilisation:.2f}"


seen = {
    "the urgent one waits": told(False),
    "resume": told("resume"),
    "restart": told("restart"),
    "resample": told("resample"),
}
for case, figures in seen.items():
    print(f"{case}: {figures}")
assert list(seen.values()) == ["0.44, 0.44", "0.44, 0.12", "0.76, 0.44", "0.76, 0.44"], "the behaviour has changed"
PYTHON
echo "as described"
