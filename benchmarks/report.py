"""The audit report: how long it takes to build, what it weighs, whether it is the same everywhere, what verify finds.

    python benchmarks/report.py runs/textile --into docs/report.md

Every build runs in a process of its own that reads the evidence and its pictures from a folder, as whoever has only
those would. The report of 200 panels repeats the run's own images with other pictures of the same size: no small run
has 200 to show.
"""

import argparse
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pikepdf
from page import publish, say, table
from PIL import Image

from explain.report.panels import encode_jpeg
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence, with_id
from explain.report.verify import verify_report
from explain.report.write import collect

FULL, MANY = 40, 200
BUILDS, REBUILDS, TAMPERED = 5, 10, 200
ZONES = ("UTC", "Asia/Tokyo")

BUILD = """
import hashlib, json, sys, time
from pathlib import Path
begun = time.perf_counter()
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence
folder = Path(sys.argv[1])
evidence = Evidence.model_validate_json((folder / "evidence.json").read_bytes())
pictures = {file.name: file.read_bytes() for file in folder.glob("*.jpg")}
ready = time.perf_counter()
seconds, hashes = [], set()
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    pdf = render_pdf(evidence, pictures)
    seconds.append(time.perf_counter() - start)
    hashes.add(hashlib.sha256(pdf).hexdigest())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"start": ready - begun, "seconds": seconds, "bytes": len(pdf), "hashes": sorted(hashes),
                  "mib": int(peak.split()[1]) / 1024, "torch": "torch" in sys.modules}))
"""
"""Builds a report several times; torch must not be needed for it."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path, help="folder of a trained pair with an evaluation")
    options.add_argument("--into", type=Path, help="Markdown file whose figures are replaced")
    given = options.parse_args()
    say("collecting the evidence and its panels")
    per_rule = -(-FULL // 5)  # five rules and more choose that many each
    whole = collect(given.run, "en", per_rule=per_rule)
    brief = collect(given.run, "en", per_rule=per_rule, brief=True)
    japanese = collect(given.run, "ja", per_rule=per_rule)
    kinds = {
        f"full, {FULL} panels": shown(*whole, FULL),
        f"full, {FULL} panels, Japanese": shown(*japanese, FULL),
        "brief, 2 pages": brief,
        f"full, {MANY} panels": repeated(*whole, MANY),
    }
    with tempfile.TemporaryDirectory() as folder:
        places = {name: store(Path(folder) / str(number), *kind) for number, (name, kind) in enumerate(kinds.items())}
        lines = build_table(places)
        lines += same_bytes(places[f"full, {FULL} panels"], Path(folder))
    few = {"brief": brief, "full, 4 panels": shown(*whole, 4)}
    lines += table(["report", "one byte changed", "untouched passes", "changes", "found", "seconds per verify"],
                   [row for name, kind in few.items() for row in tampering(*kind, name)])
    lines += accessibility({"English": shown(*whole, FULL), "Japanese": shown(*japanese, FULL),
                            "brief": kinds["brief, 2 pages"]})  # fmt: skip
    publish("\n".join(lines), given.into)


def shown(evidence: Evidence, pictures: dict[str, bytes], count: int) -> tuple[Evidence, dict[str, bytes]]:
    """The report with the first panels only."""
    panels = evidence.panels.model_copy(update={"samples": evidence.panels.samples[:count]})
    if len(panels.samples) < count:
        say(f"the run has {len(panels.samples)} panels to show, not {count}")
    return with_id(evidence.model_copy(update={"panels": panels})), pictures


def repeated(evidence: Evidence, pictures: dict[str, bytes], count: int) -> tuple[Evidence, dict[str, bytes]]:
    """The report with its panels again and again, every picture turned a little so that none is there twice."""
    samples, drawn, own = [], dict(pictures), evidence.panels.samples
    for index in range(count):
        text = own[index % len(own)].model_dump(mode="json")
        for picture in (text["input"], *(entry["picture"] for entry in text["maps"])):
            pixels = np.roll(np.asarray(Image.open(io.BytesIO(pictures[picture["file"]]))), index, axis=1)
            picture["file"] = f"again.{index:03d}.{picture['file']}"
            drawn[picture["file"]] = encode_jpeg(pixels)
            picture["sha256"] = hashlib.sha256(drawn[picture["file"]]).hexdigest()
        samples.append(type(own[0]).model_validate(text))
    panels = evidence.panels.model_copy(update={"samples": tuple(samples)})
    return with_id(evidence.model_copy(update={"panels": panels})), drawn


def store(folder: Path, evidence: Evidence, pictures: dict[str, bytes]) -> Path:
    """Everything that a build needs, in a folder."""
    folder.mkdir()
    (folder / "evidence.json").write_text(evidence.model_dump_json(), encoding="utf-8")
    for picture in evidence.pictures:
        (folder / picture.file).write_bytes(pictures[picture.file])
    return folder


def build(folder: Path, times: int, **environment: str) -> dict:
    """What a process that builds the report of a folder says."""
    done = subprocess.run([sys.executable, "-c", BUILD, str(folder), str(times)], capture_output=True, check=True,
                          env=os.environ | environment, text=True)  # fmt: skip
    return json.loads(done.stdout)


def build_table(places: dict[str, Path]) -> list[str]:
    """Time, memory and size of every report."""
    rows = []
    for name, folder in places.items():
        say(f"building: {name}")
        found = build(folder, BUILDS)
        first, *later = found["seconds"]
        rows.append([name, f"{first:.2f}", f"{statistics.median(later):.2f} ({min(later):.2f} to {max(later):.2f})",
                     f"{found['start']:.2f}", f"{found['mib']:.0f}", f"{found['bytes'] / 1e6:.2f}",
                     "yes" if found["torch"] else "no"])  # fmt: skip
    return table(["report", "first build, s", "later builds, s", "start of the process, s", "peak memory, MiB", "MB",
                  "torch loaded"], rows)  # fmt: skip


def same_bytes(folder: Path, other: Path) -> list[str]:
    """How many different files come of one evidence in two folders and two time zones."""
    say("building again in other folders and time zones")
    import shutil

    places = [folder, Path(shutil.copytree(folder, other / "somewhere else" / "deep" / "down"))]
    hashes = {one for place in places for zone in ZONES for one in build(place, REBUILDS, TZ=zone)["hashes"]}
    count = len(places) * len(ZONES) * REBUILDS
    return table(["builds in 2 folders x 2 time zones x 10", "different files"], [[str(count), str(len(hashes))]])


def tampering(evidence: Evidence, pictures: dict[str, bytes], what: str) -> list[list[str]]:
    """How many single-byte changes are found by verify: of the PDF, and of a file attached to it."""
    say(f"changing one byte of the {what} report and of its attachments, {TAMPERED} times each")
    pdf, rng = render_pdf(evidence, pictures), random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.pdf"
        target.write_bytes(pdf)
        sound = verify_report(target).passed
        for where, change in (("in the PDF", changed_file), ("in an attachment", changed_attachment)):
            found, seconds = 0, []
            for _ in range(TAMPERED):
                target.write_bytes(change(pdf, rng))
                start = time.perf_counter()
                found += not verify_report(target).passed
                seconds.append(time.perf_counter() - start)
            rows.append([what, where, "yes" if sound else "no", str(TAMPERED), str(found),
                         f"{statistics.median(seconds):.2f}"])  # fmt: skip
    return rows


def changed_byte(content: bytes, rng: random.Random) -> bytes:
    """The content with another byte at a random place."""
    changed, place = bytearray(content), rng.randrange(len(content))
    changed[place] ^= rng.randrange(1, 256)
    return bytes(changed)


def changed_file(pdf: bytes, rng: random.Random) -> bytes:
    """The file with another byte."""
    return changed_byte(pdf, rng)


def changed_attachment(pdf: bytes, rng: random.Random) -> bytes:
    """The file with another byte in one of the files attached to it."""
    stream = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as opened:
        specs = [opened.attachments[name] for name in sorted(opened.attachments)]
        inside = rng.choices(specs, weights=[len(spec.get_file().read_bytes()) for spec in specs])[0].get_file().obj
        inside.write(changed_byte(inside.read_bytes(), rng))
        opened.save(stream)
    return stream.getvalue()


def accessibility(kinds: dict[str, tuple[Evidence, dict[str, bytes]]]) -> list[str]:
    """What an independent checker of PDF/UA says."""
    import outloud

    rows = []
    for name, (evidence, pictures) in kinds.items():
        say(f"checking PDF/UA: {name}")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "report.pdf"
            target.write_bytes(render_pdf(evidence, pictures))
            rows.append([name, str(outloud.check(str(target)).errors)])
    return table(["report", "errors of the PDF/UA checker"], rows)


if __name__ == "__main__":
    main()
