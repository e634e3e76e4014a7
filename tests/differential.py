"""Compares an old and the new version on one corpus: a change of structure must change no result.

    git worktree add ../old REVISION
    .venv/bin/python -m tests.differential ../old --generated 500

The corpus is every ready mapping, example, document of the docs and golden problem, and generated documents with
messages.  Each document gives its problems (code and place), and each writer the lines, failures (code and place) and
skips of its messages, in both plans.  Texts of problems are not compared.  It prints each difference, and exits with 1
if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SAMPLES = [
    b"{}",
    b"[]",
    b"null",
    b'{"a":1}',
    b'{"a":1,"a":2}',
    b'{"a":"\\ud83d"}',
    b"\xff",
    b"7",
    b'[{"a":1},{"a":"x"}]',
]
Job = dict[str, Any]


def main() -> int:
    """Compare, print, count."""
    parser = argparse.ArgumentParser(prog="tests.differential")
    parser.add_argument("old", type=Path, nargs="?", help="a checkout of the code to compare with")
    parser.add_argument("--generated", type=int, default=200, help="generated documents")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work()
    jobs = [*written(), *generated(options.generated)]
    differences = 0
    for job, old, new in zip(jobs, run(options.old, jobs), run(ROOT, jobs), strict=True):
        for part in sorted(old.keys() | new.keys()):
            if old.get(part) != new.get(part):
                differences += 1
                print(f"{job['name']}: {part}\n  old {_short(old.get(part))}\n  new {_short(new.get(part))}")
    print(f"{differences} differences in {len(jobs)} documents")
    return int(differences > 0)


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:400]


# --- the corpus ---


def written() -> Iterator[Job]:
    """Yield documents written by people, with the samples beside them."""
    block = re.compile(r"^```(yaml|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    for folder in ("mappings", "examples", "tests/cases"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".yaml", ".toml"):
                yield _job(str(path.relative_to(ROOT)), path.read_bytes(), path.suffix[1:], _samples(path))
    for page in sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")}):
        for number, (form, text) in enumerate(block.findall(page.read_text("utf-8"))):
            yield _job(f"{page.relative_to(ROOT)}#{number}", text.encode(), form, SAMPLES)


def _samples(path: Path) -> list[bytes]:
    near = path.parent / "samples" / f"{path.stem}.ndjson"
    return [*SAMPLES, *(near.read_bytes().splitlines() if near.exists() else [])]


def generated(count: int) -> Iterator[Job]:
    """Yield documents and messages of the law."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.strategies import FORMATS, as_yaml, cases

    jobs: list[Job] = []

    @seed(20_261_128)
    @settings(
        max_examples=max(count, 1),
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    # The rules of msgpack and cbor have changed: tests/test_payloads.py checks them with readers of its own.
    # A document with protobuf needs a file.
    @given(cases([form for form in FORMATS if form not in ("msgpack", "cbor", "protobuf")]))
    def draw(case: Any) -> None:
        document, batches = case
        payloads = [message.payload for batch in batches for message in batch]
        jobs.append(_job(f"generated {len(jobs)}", as_yaml(document).encode(), "yaml", payloads))

    if count:
        draw()
    yield from jobs[:count]


def _job(name: str, text: bytes, form: str, payloads: list[bytes]) -> Job:
    encoded = [b64encode(payload).decode() for payload in payloads]
    return {"name": name, "text": b64encode(text).decode(), "format": form, "payloads": encoded}


# --- running both versions ---


def run(checkout: Path, jobs: list[Job]) -> list[dict[str, Any]]:
    """Return the results of a checkout's code."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--worker"],
        input="".join(json.dumps(job) + "\n" for job in jobs),
        env=environment,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def work() -> int:
    """Read jobs, write results, one per line."""
    for line in sys.stdin:
        job = json.loads(line)
        try:
            result = _result(job)
        except Exception as error:  # a crash is a result too
            result = {"crash": f"{type(error).__name__}"}
        print(json.dumps(result), flush=True)
    return 0


def _result(job: Job) -> dict[str, Any]:
    from iggyflux import MappingError, Message, parse_mapping

    try:
        mapping = parse_mapping(b64decode(job["text"]).decode(), name="n", format=job["format"])
    except UnicodeDecodeError:
        return {"problems": "not UTF-8"}
    except MappingError as error:
        return {"problems": sorted(_place(problem) for problem in error.problems)}
    result: dict[str, Any] = {"kind": mapping.kind, "hash": mapping.hash}
    if mapping.kind == "writer":
        messages = [
            Message(b64decode(payload), "s", "t", 0, number, 1_700_000_000_000_000 + number)
            for number, payload in enumerate(job["payloads"])
        ]
        for kind in ("reference", "compiled"):
            rendered = mapping.plan(kind).render(messages)
            result[kind] = {
                "lines": list(rendered.lines),
                "origins": list(rendered.origins),
                "failures": [
                    (each.index, each.element, each.point, each.code, each.location) for each in rendered.failures
                ],
                "skipped": list(rendered.skipped),
                "empty": list(rendered.empty),
            }
    return result


def _place(problem: Any) -> list[Any]:
    location = problem.location
    return [problem.code, *((location.line, location.column) if location is not None else (0, 0))]


if __name__ == "__main__":
    sys.exit(main())
