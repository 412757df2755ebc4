"""What `photomaker serve` bears: many clients on loopback, the bundled model, against the same work without HTTP.

python scripts/load_server.py --minutes 5

Each client orders a picture, listens until it is there, fetches it, and orders the next. The same pictures are drawn
without a server before and after. Writes serve.json and serve.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from photomaker.studio.engine import Engine
    from photomaker.types import Identity, Request

ROOT = Path(__file__).parents[1]
PROMPT = "a photo of a woman img in the snow"
PEOPLE = ("ada", "ben")
BATCHES = (1, 2, 4, 8)
WINDOW = 60.0
"""Seconds at the beginning and at the end over which memory is compared; less in a short run."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What is asked of the server."""

    minutes: float
    clients: int
    steps: int
    previews: bool


@dataclass
class Seen:
    """What the clients saw."""

    seconds: float = 0.0
    cpu: float = 0.0
    finished: int = 0
    fetched: int = 0
    lost: list[str] = field(default_factory=list)
    put_off: int = 0
    waited: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    counted: float = 0.0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the load")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of a picture")
    parser.add_argument("--no-previews", action="store_true", help="clients ask for no pictures of the steps")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    asked = parser.parse_args()
    load = Load(asked.minutes, asked.clients, asked.steps, not asked.no_previews)
    before = alone(load)
    seen = served(load)
    after = alone(load)
    result = {
        "load": asdict(load),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "without_http": {name: mean((before[name], after[name])) for name in before},
        "with_http": summed(seen),
    }
    write(asked.out, result)


# ---- the same work without HTTP


def alone(load: Load) -> dict[str, float]:
    """Draw and save pictures one by one, and some in batches: pictures a second, processor seconds a picture."""
    command = [sys.executable, __file__, "--alone", json.dumps(asdict(load))]
    told = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def draw_alone(load: Load) -> dict[str, float]:
    """What `alone` runs in a process of its own."""
    from photomaker.studio.engine import Engine

    engine = Engine.open()
    people = [engine.identity(ROOT / "examples" / name) for name in PEOPLE]
    draw(engine, people[0], requests(1, load.steps))
    found = one_by_one(engine, people, load)
    for count in BATCHES:
        began = time.process_time()
        for _ in range(max(1, 8 // count)):
            draw(engine, people[0], requests(count, load.steps))
        found[f"cpu_batch_{count}"] = (time.process_time() - began) / max(8, count)
    return found


def one_by_one(engine: Engine, people: list[Identity], load: Load) -> dict[str, float]:
    """Pictures of each person in turn, saved."""
    from photomaker.studio.pictures.saving import save_samples

    count, began, cpu = 0, time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - began < load.minutes * 60 / 4:
            save_samples(
                draw(engine, people[count % 2], requests(1, load.steps, count)), folder, engine.about
            )
            count += 1
    return {
        "pictures_a_second": count / (time.perf_counter() - began),
        "cpu_a_picture": (time.process_time() - cpu) / count,
    }


def requests(count: int, steps: int, seed: int = 0) -> list[Request]:
    """Pictures to draw."""
    from photomaker.types import Request, Sampling

    return [Request(PROMPT, Sampling(steps=steps, seed=seed + number)) for number in range(count)]


def draw(engine: Engine, who: Identity, what: list[Request]) -> list:
    """Draw."""
    return engine.draw(who, what)


# ---- with it


def environment() -> dict[str, str]:
    """Of every process: one thread, no hub, these sources."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}


def served(load: Load) -> Seen:
    """Start the server, load it, end it."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        words = ["-m", "photomaker.apps.cli", "serve", "--port", "0", "--data", f"{folder}/data"]
        with log.open("w") as file:
            server = subprocess.Popen([sys.executable, *words], env=environment(), stdout=file, stderr=file)
        try:
            return asyncio.run(loaded(address(server, log), server.pid, load))
        finally:
            server.terminate()
            server.wait(60)
            print(log.read_text())


def address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server is, once it is there."""
    while not (found := re.search(r"serves on (\S+);", log.read_text())):
        if server.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.2)
    return found[1]


async def loaded(url: str, pid: int, load: Load) -> Seen:
    """All clients at once, until the time is over and everybody has what they ordered."""
    import httpx

    seen = Seen()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:
        for name in PEOPLE:
            photos = [
                ("photos", (one.name, one.read_bytes()))
                for one in sorted((ROOT / "examples" / name).glob("*.png"))
            ]
            (await http.post("/v1/identities", files=photos, data={"name": name})).raise_for_status()
        await one_job(http, 0, load, Seen())
        began, cpu, made = time.perf_counter(), cpu_of(pid), await figure(http, "photomaker_pictures_total")
        watching = asyncio.ensure_future(watch(http, began, seen))
        ends = began + load.minutes * 60
        await asyncio.gather(*(client(http, number, ends, load, seen) for number in range(load.clients)))
        seen.seconds, seen.cpu = time.perf_counter() - began, cpu_of(pid) - cpu
        seen.counted = await figure(http, "photomaker_pictures_total") - made
        watching.cancel()
    return seen


async def client(http: httpx.AsyncClient, number: int, ends: float, load: Load, seen: Seen) -> None:
    """Order, wait, fetch, again."""
    while time.perf_counter() < ends:
        await one_job(http, number, load, seen)


async def one_job(http: httpx.AsyncClient, number: int, load: Load, seen: Seen) -> None:
    """One picture from order to file."""
    order = {"people": [PEOPLE[number % 2]], "prompts": [PROMPT], "steps": load.steps, "seed": number}
    answer = await http.post("/v1/jobs", json=order)
    if answer.status_code == 429:
        seen.put_off += 1
        await asyncio.sleep(int(answer.headers["Retry-After"]))
        return
    job = answer.raise_for_status().json()["id"]
    async with http.stream("GET", f"/v1/jobs/{job}/events", params={"previews": load.previews}) as stream:
        async for _ in stream.aiter_lines():
            pass
    told = (await http.get(f"/v1/jobs/{job}")).json()
    if told["state"] != "done":
        seen.lost.append(f"{job}: {told['state']} {told['reason']}")
        return
    seen.finished += 1
    seen.waited.append(told["started"] - told["made"])
    for picture in told["pictures"]:
        data = (await http.get(picture["url"])).raise_for_status().content
        seen.fetched += data.startswith(b"\x89PNG") and data.rstrip().endswith(b"IEND\xaeB`\x82")


async def watch(http: httpx.AsyncClient, began: float, seen: Seen) -> None:
    """Note the server's memory, second by second."""
    while True:
        memory = await figure(http, "process_resident_memory_bytes")
        seen.memory.append((time.perf_counter() - began, memory))
        await asyncio.sleep(1)


async def figure(http: httpx.AsyncClient, name: str) -> float:
    """One of the server's figures."""
    lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def cpu_of(pid: int) -> float:
    """Processor seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def processor() -> str:
    """What it runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


# ---- figures


def summed(seen: Seen) -> dict[str, object]:
    """What is written down."""
    window = min(WINDOW, seen.seconds / 3)
    first = [value for at, value in seen.memory if at <= window]
    last = [value for at, value in seen.memory if at >= seen.seconds - window]
    several = len(seen.waited) > 1
    return {
        "seconds": seen.seconds,
        "jobs": seen.finished,
        "pictures_a_second": seen.finished / seen.seconds,
        "cpu_a_picture": seen.cpu / max(1, seen.finished),
        "waiting_p50": median(seen.waited),
        "waiting_p99": quantiles(seen.waited, n=100)[98] if several else seen.waited[0],
        "memory_first_mb": mean(first) / 2**20,
        "memory_last_mb": mean(last) / 2**20,
        "memory_window_seconds": window,
        "lost": seen.lost,
        "missing_files": seen.finished - seen.fetched,
        "drawn_and_not_asked_for": seen.counted - seen.finished,
        "put_off": seen.put_off,
    }


def write(out: Path, result: dict) -> None:
    """The result as JSON and as a page."""
    own, with_, load = result["without_http"], result["with_http"], result["load"]
    share = with_["pictures_a_second"] / own["pictures_a_second"]
    growth = with_["memory_last_mb"] / with_["memory_first_mb"] - 1
    lost = len(with_["lost"]) + with_["missing_files"]
    one = own["cpu_batch_1"]
    batches = ", ".join(
        f"{count}: {own[f'cpu_batch_{count}']:.3f} s ({one / own[f'cpu_batch_{count}']:.2f} times)"
        for count in BATCHES
    )
    previews = "with" if load["previews"] else "without"
    command = f"python scripts/load_server.py --minutes {load['minutes']:g} --steps {load['steps']}"
    rows = [
        ("pictures a second with HTTP", f"{with_['pictures_a_second']:.3f}", ""),
        ("without, before and after", f"{own['pictures_a_second']:.3f}", ""),
        ("share", f"{100 * share:.1f} %", "95 %"),
        ("processor seconds a picture with HTTP", f"{with_['cpu_a_picture']:.3f}", ""),
        ("without", f"{own['cpu_a_picture']:.3f}", ""),
        ("waiting in the queue, p50", f"{with_['waiting_p50']:.1f} s", ""),
        ("waiting in the queue, p99", f"{with_['waiting_p99']:.1f} s", ""),
        (
            f"memory in the first {with_['memory_window_seconds']:.0f} s",
            f"{with_['memory_first_mb']:.0f} MB",
            "",
        ),
        ("in the last", f"{with_['memory_last_mb']:.0f} MB ({100 * growth:+.1f} %)", "within 5 %"),
        ("jobs done", str(with_["jobs"]), ""),
        ("lost", str(lost), "0"),
        ("put off (429)", str(with_["put_off"]), ""),
    ]
    lines = [
        "# What the server bears",
        "",
        f"{load['clients']} clients on loopback, {load['minutes']:g} min: each orders a picture of "
        f"{load['steps']} steps by the bundled model, listens to it {previews} previews, fetches it and orders the "
        f"next. {result['machine']}. Made by `{command}`.",
        "",
        "| what | figure | wanted |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Processor seconds a picture where several of one person are drawn at once: {batches}.",
        "",
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "serve.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "serve.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(draw_alone(Load(**json.loads(sys.argv[2])))))
    else:
        main()
