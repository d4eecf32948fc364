import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from poison import poisoned_site

from explain.archive.archive import MapArchive
from explain.archive.commit import begin
from explain.archive.paths import ATTEMPTS, key
from explain.archive.store import Store
from explain.batch.base import BACKENDS, Work
from explain.batch.dataset import attribute_dataset
from explain.batch.models import Source
from explain.batch.settings import Settings
from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError
from explain.training.pair import MatchedPair

pytestmark = pytest.mark.xdist_group("ray")

Ray = BACKENDS["ray"]
ray_module = sys.modules[Ray.__module__]

SHARDS = 6
ASKED = {"methods": ("grad_cam", "integrated_gradients"), "options": {"integrated_gradients": {"n_steps": 8}},
         "shard_size": 4, "threads": 1, "device": "cpu"}  # fmt: skip


# a Ray of a few lines, in which workers die when they are told to


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback from elsewhere")
        self.cause = cause


class FakeRay:
    """Does at once what a worker is asked for; `deaths` says how often a shard (None: loading models) kills it."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, deaths: dict[int | None, int] | None = None, error: Exception | None = None) -> None:
        self.deaths, self.error = Counter(deaths or {}), error
        self.created, self.killed, self.asked = 0, [], []

    def create(self) -> SimpleNamespace:
        self.created += 1
        actor = SimpleNamespace(number=self.created)
        actor.open = SimpleNamespace(remote=lambda: (actor.number, None))
        actor.run = SimpleNamespace(remote=lambda shard: (actor.number, shard))
        return actor

    def wait(self, tasks: list[tuple[int, int | None]], num_returns: int) -> tuple[list, list]:
        return tasks[:1], tasks[1:]

    def get(self, task: tuple[int, int | None]) -> dict[str, int] | None:
        _, shard = task
        self.asked.append(shard)
        if self.deaths[shard] > 0:
            self.deaths[shard] -= 1
            raise RayError("the process is gone\nmore lines")
        if self.error is not None and shard is not None:
            raise RayTaskError(self.error)
        return None if shard is None else {"ok": shard}

    def kill(self, actor: SimpleNamespace) -> None:
        self.killed.append(actor.number)

    def work(self, shards: Iterator[int], workers: int = 2) -> dict[int, dict[str, int]]:
        done: dict[int, dict[str, int]] = {}
        ray_module._Pool(self, self.create, shards, done.__setitem__).work(workers)
        return done


def test_every_shard_is_computed_once():
    ray = FakeRay()
    assert ray.work(iter(range(9)), workers=3) == {shard: {"ok": shard} for shard in range(9)}
    assert sorted(shard for shard in ray.asked if shard is not None) == list(range(9))
    assert (ray.created, ray.killed) == (3, [])


def test_shard_numbers_are_taken_as_they_are_needed():
    taken, ray = deque(), FakeRay()
    pool = ray_module._Pool(ray, ray.create, (taken.append(shard) or shard for shard in range(1000)), None)
    most = []
    pool._done = lambda shard, statuses: most.append(len(taken) - len(most))
    pool.work(3)
    assert len(most) == 1000 and max(most) <= 3


def test_shard_of_a_dead_worker_is_handed_to_a_new_one():
    ray = FakeRay({2: 3, 5: 1})
    assert ray.work(iter(range(9))).keys() == set(range(9))
    assert len(ray.killed) == 4  # none is left behind, should it only be out of reach
    assert ray.asked.count(2) == 4


def test_shard_that_kills_every_worker_stops_the_run_and_is_named():
    ray = FakeRay({2: 99})
    with pytest.raises(ray_module.WorkersLost, match=r"shard 2 killed 4 workers.*the process is gone\)") as caught:
        ray.work(iter(range(9)))
    assert caught.value.exit_code == 4
    assert ray.asked.count(2) == 4


def test_workers_that_die_while_they_load_the_models_stop_the_run():
    with pytest.raises(ray_module.WorkersLost, match="loading the models killed 4 workers"):
        FakeRay({None: 99}).work(iter(range(9)))
    assert FakeRay({None: 3}).work(iter(range(9))).keys() == set(range(9))


def test_error_of_a_worker_is_raised_here_as_it_was_there():
    with pytest.raises(IntegrityError, match="another model"):
        FakeRay(error=IntegrityError("another model")).work(iter(range(9)))
    with pytest.raises(RayTaskError, match="traceback from elsewhere"):  # no error of ours: all that is known of it
        FakeRay(error=KeyError("a mistake")).work(iter(range(9)))


def test_interrupted_shards_do_not_count_as_attempts_but_that_of_a_dead_worker_does(tmp_path):
    store, ray = Store.open(tmp_path), FakeRay({3: 99})
    pool = ray_module._Pool(ray, ray.create, iter(range(100)), lambda shard, statuses: None)
    for shard in range(100):
        begin(store, shard)
    with pytest.raises(ray_module.WorkersLost):
        pool.work(3)
    at = [shard for _, shard in pool._tasks.values() if shard is not None]
    pool.close(store)
    assert at and not any(store.exists(key(ATTEMPTS, shard)) for shard in at)
    assert store.exists(key(ATTEMPTS, 3))


# what is refused before Ray is started


def work_of(sources: dict[str, Source], url: str = "/nowhere") -> Work:
    return Work(url, sources, Settings())


@pytest.mark.parametrize(
    ("backend", "work", "message"),
    [
        (Ray(), work_of({"model": Source()}), "expected trained runs .* model 'model' was given from memory"),
        (Ray(), work_of({}, "memory://maps"), "expected an archive in a folder or a bucket"),
        (Ray(workers=0), work_of({}), "expected at least one worker, got 0"),
    ],
)
def test_work_that_other_processes_cannot_do_is_refused(backend, work, message):
    with pytest.raises(InputError, match=message):
        backend.run(work, iter([0]), lambda shard, statuses: None, lambda count: None)


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install explain-vit\[ray\]"):
        Ray().run(work_of({}), iter([0]), lambda shard, statuses: None, lambda count: None)


def test_importing_the_module_does_not_import_ray():
    tree = ast.parse(Path(ray_module.__file__).read_text(encoding="utf-8"))
    at_import = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "os" in at_import and "ray" not in at_import


def test_address_where_nobody_listens_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, but no one answers
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray at '{address}': .*refused"):
            Ray(address=address).run(work_of({}), iter([0]), lambda shard, statuses: None, lambda count: None)


@pytest.mark.parametrize(
    ("asked", "device", "resources", "expected"),
    [
        (None, None, {"CPU": 4.0}, (4, 0)),
        (3, None, {"CPU": 4.0}, (3, 0)),
        (None, None, {"CPU": 16.0, "GPU": 2.0}, (2, 1)),
        (None, "cpu", {"CPU": 16.0, "GPU": 2.0}, (16, 0)),
        (None, None, {"CPU": 1.0, "GPU": 2.0}, (1, 1)),
    ],
)
def test_there_is_a_worker_per_gpu_or_per_core(asked, device, resources, expected):
    assert Ray(workers=asked)._fit(resources, Settings(device=device)) == expected


@pytest.mark.parametrize(("asked", "resources"), [(5, {"CPU": 4.0}), (3, {"CPU": 16.0, "GPU": 2.0}), (None, {})])
def test_more_workers_than_fit_are_refused_since_they_would_never_start(asked, resources):
    with pytest.raises(InputError, match="expected at most"):
        Ray(workers=asked)._fit(resources, Settings())


# Ray itself


def workers(doing: str = "", of: int | None = None) -> list[psutil.Process]:
    """Processes that compute shards for this program, or for the one of that number; nobody else's."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if f"ray::ShardActor{doing}" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def inline(pictures: Dataset, tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> MapArchive:
    return attribute_dataset(tiny_pair, pictures, out=tmp_path_factory.mktemp("maps") / "inline", **ASKED)


def test_ray_survives_a_killed_worker_and_writes_what_inline_writes(inline, pictures, tiny_pair, tmp_path):
    killed = []

    def progress(what: str, done: int, total: int) -> None:
        at = workers(".run")
        if what == "explaining" and at and not killed:
            at[0].kill()
            killed.append(at[0].pid)

    found = attribute_dataset(
        tiny_pair, pictures, out=tmp_path / "maps", backend=Ray(workers=2), progress=progress, **ASKED
    )
    assert killed
    assert found.finished.statuses == {"ok": len(pictures)}
    assert found.content_sha256 == inline.content_sha256
    assert list(found.store.list("attempts")) == []
    assert workers() == []


# whole programs that are killed, minutes in all


DRIVER = """
import sys
from explain.batch.dataset import attribute_dataset

pair, data, out, backend, steps = sys.argv[1:]
attribute_dataset(pair, data, out=out, backend=backend, methods="integrated_gradients", device="cpu", threads=1,
                  options={"integrated_gradients": {"n_steps": int(steps)}}, shard_size=4)
"""


def start(
    pair: MatchedPair, data: Path, out: Path, backend: str, steps: int = 4, **environment: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DRIVER, str(pair.path), str(data), str(out), backend, str(steps)]
    return subprocess.Popen(command, env=os.environ | environment, preexec_fn=hear_ctrl_c)


def hear_ctrl_c() -> None:
    """What runs in the background of a shell was told to ignore SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def committed(out: Path) -> dict[str, int]:
    """Name -> time of writing of each receipt."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("receipts/*/*.json")}


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def poisoned(pictures: Dataset, tmp_path: Path) -> tuple[Path, str]:
    """The pictures, one of which kills its decoder, and the id of that one."""
    folder = shutil.copytree(pictures.root, tmp_path / "pictures")
    bad = pictures.samples[14].path.relative_to(pictures.root)
    with open(folder / bad, "ab") as stream:
        stream.write(b"KILL")
    return folder, bad.as_posix()


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "starts"), [("inline", 3), ("ray", 1)])
def test_image_that_kills_its_decoder_ends_as_one_row_with_a_reason(poisoned, tiny_pair, tmp_path, backend, starts):
    data, bad = poisoned
    site = str(poisoned_site(tmp_path / "site"))
    codes = [start(tiny_pair, data, tmp_path / "maps", backend, PYTHONPATH=site).wait(200) for _ in range(starts)]
    assert codes == [-signal.SIGKILL] * (starts - 1) + [0]
    archive = MapArchive(tmp_path / "maps")
    assert archive.finished.statuses == {"ok": 23, "decoder_crashed": 1}
    assert archive[bad].status == "decoder_crashed"
    assert list(archive.store.list("attempts")) == []


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_driver_that_is_stopped_leaves_no_process_and_only_what_is_missing_is_computed_again(
    pictures, tiny_pair, tmp_path, kill
):
    out = tmp_path / "maps"
    with start(tiny_pair, pictures.root, out, "ray", steps=100) as driver:
        wait_for(lambda: committed(out) and workers(".run", driver.pid), 200)
        family = psutil.Process(driver.pid).children(recursive=True)
        assert len(family) > 4
        driver.send_signal(kill)
        assert driver.wait(10) != 0
    wait_for(lambda: not alive(family), 30)
    before = committed(out)
    assert 0 < len(before) < SHARDS
    if kill == signal.SIGINT:  # the driver could put away what was begun; else a worker may have, or not
        assert list(Store.open(out).list("attempts")) == []
    assert start(tiny_pair, pictures.root, out, "ray", steps=100).wait(200) == 0
    after = committed(out)
    assert len(after) == SHARDS
    assert {name: after[name] for name in before} == before
    assert MapArchive(out).finished.statuses == {"ok": 24}


@pytest.mark.slow
def test_ray_listens_to_this_machine_alone_and_writes_nothing_below_home(pictures, tiny_pair, tmp_path):
    out, home = tmp_path / "maps", tmp_path / "no folder" / "file"
    home.parent.touch()  # nothing can be made below a file
    addresses = set()
    with start(tiny_pair, pictures.root, out, "ray", steps=50, HOME=str(home), EXPLAIN_CACHE=str(tmp_path)) as driver:
        wait_for(lambda: workers(".run", driver.pid))
        for process in psutil.Process(driver.pid).children(recursive=True):
            addresses |= {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
        assert driver.wait(200) == 0
    assert addresses and {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_ray_that_is_already_running_is_used_and_left_running(inline, pictures, tiny_pair, tmp_path):
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        found = attribute_dataset(tiny_pair, pictures, out=tmp_path / "maps", backend="ray", **ASKED)
        assert found.content_sha256 == inline.content_sha256
        assert ray.is_initialized()
        wait_for(lambda: not workers(), 10)
    finally:
        ray.shutdown()
