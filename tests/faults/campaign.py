"""Many faults at random points of a whole run: `make faults`, or `python -m tests.faults.campaign --points 50`.

Each point is a run of its own: something happens to it, it is started again until it is through, and then all has to be
as if nothing had happened. The table that it writes stands in docs/faults.md.
"""

import argparse
import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.faults import FAULTS, moments, provide_servers, strike
from tests.faults.world import World


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=50, help="faults in all, of each kind in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--arms", default="[pcd,random]", help="arms of the struck benchmark")
    parser.add_argument("--kind", choices=FAULTS, action="append", help="only this kind; may be given again")
    parser.add_argument("--json", type=Path, help="a line for each point is appended here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so the runs' Ctrl-C
    options = ("--set", f"arms={arguments.arms}")
    with tempfile.TemporaryDirectory(prefix="pcd-faults-") as folder:
        reference = World(Path(folder) / "reference", options)
        began = time.monotonic()
        reference.run_to_the_end(attempts=1)
        whole = time.monotonic() - began
        faulty = reference.violations(reference)
        print(f"undisturbed: {whole:.0f} s {faulty or ''}", flush=True)
        struck, violated = Counter[str](), Counter[str]()
        names = arguments.kind or list(FAULTS)
        for number, moment in enumerate(moments(arguments.points, whole, arguments.seed)):
            name = names[number % len(names)]
            record = _one_point(name, moment, reference, Path(folder) / f"point{number}", options)
            struck[name] += record["struck run"] is not None  # else the run was over before its moment came
            violated[name] += bool(record["violations"])
            print(json.dumps(record), flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    print("\n| fault | points | violations |\n|---|---|---|")
    for name in struck:
        print(f"| {name} | {struck[name]} | {violated[name]} |")
    return int(bool(faulty or violated.total()))


def _one_point(name: str, moment: float, reference: World, folder: Path, options: tuple[str, ...]) -> dict[str, object]:
    world = World(folder, options)
    began = time.monotonic()
    violations: list[str] = []
    code, runs = None, 0
    try:
        provide_servers(world, FAULTS[name])
        code = strike(world, FAULTS[name], after=moment)
        if name != "kill -9 of everything at once":
            violations += [f"not closed by itself: {line}" for line in world.closed_by_itself()]
        runs = world.run_to_the_end()
        violations += world.violations(reference)
    except Exception as error:  # the campaign goes on; what it found is a finding
        violations.append(f"{type(error).__name__}: {error}"[:3000])
    finally:
        world.end_all()
        for server in (world.prefect, world.mlflow):
            if server is not None:
                server.kill()
    if not violations:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "fault": name, "moment": moment, "struck run": code, "runs after": runs, "violations": violations,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
