"""One command on a bare checkout with one GPU: checks, tuning, then tables beside the peers that are installed.

    python kernels/benchmarks/gpu.py                         # under ten minutes; writes results/<date>-gpu-<device>.*
    python kernels/benchmarks/gpu.py --sections checks       # correctness alone
    python kernels/benchmarks/gpu.py --dry --results /tmp/x  # no GPU: every section at tiny shapes, nothing measured

Needs torch and triton alone (the section decode also what plum_core imports), and no network. Nothing is timed where a
check failed. Each section has its share of --minutes; what no longer fits is cut and named in the output. Exit status 1
where anything failed. The fastest tiles and back ends go to plum_kernels/measured/<device>.json, where backend="auto"
finds them: commit it with the results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # a checkout that is not installed

import torch  # noqa: E402 - the paths come first
from on_gpu import checks, decoding, report, tables, tuning  # noqa: E402
from on_gpu.bench import Bench  # noqa: E402

SECTIONS = {
    "checks": (checks.run, 0.2),
    "tuning": (tuning.run, 0.25),
    "tables": (tables.run, 0.35),
    "decode": (decoding.run, 0.2),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    chosen = parser.parse_args(arguments)
    if not chosen.dry and not torch.cuda.is_available():
        parser.error("no GPU here: --dry walks every section without one")
    bench, wrong = Bench(dry=chosen.dry), False
    for name, (run, share) in SECTIONS.items():
        if name not in chosen.sections:
            continue
        if wrong:
            bench.cut.append(f"{name}: a check failed, and nothing wrong is timed")
            continue
        bench.begin(name, 60 * chosen.minutes * share)
        run(bench)
        wrong = wrong or (name == "checks" and bool(bench.failures))
    for path in report.write(bench, chosen.results):
        print(path)
    print(*(f"{name}: {found}" for name, found in report.bars(bench)), sep="\n")
    print(*(f"cut: {name}" for name in bench.cut), *(f"FAILED {name}" for name in bench.failures), sep="\n")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
