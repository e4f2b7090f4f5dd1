"""A sweep on a real Ray cluster of two nodes on this machine, one of which is killed."""

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kdplatform.errors import MachineError, UserError
from kdplatform.experiments.executors import ray as ray_executor
from kdplatform.experiments.executors.ray import RayExecutor, say_remark

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; the second is `worker_node`."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.worker_node = cluster.add_node(num_cpus=1)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'kdplatform\[ray\]'"):
        RayExecutor(print, "cpu", "auto")


def test_an_address_where_nothing_listens_is_refused_at_once():
    started = time.perf_counter()
    with pytest.raises(MachineError, match=r"address='127.0.0.1:1': no Ray cluster answers"):
        RayExecutor(print, "cpu", "127.0.0.1:1")
    assert time.perf_counter() - started < 15


@pytest.mark.parametrize("address", ["somewhere", "host:port", "host:99999999"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises((UserError, MachineError), match=f"address='{address}'"):
        RayExecutor(print, "cpu", address)


def test_auto_without_a_cluster_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(MachineError, match="ray start --head"):
        RayExecutor(print, "cpu", "auto")


def test_what_ray_remarks_is_a_line_on_stderr(capsys):
    say_remark({"lines": ["Raylet is terminated. Possible reasons include: (1)\n  [state-dump]\n"]})
    lost = "Task _on_one_core failed. There are 3 retries remaining. Error: "
    say_remark({"lines": [lost, f"{lost}Task was killed, low on memory. Memory on the node ...\n"]})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "Ray: Raylet is terminated",
        "Ray: a step is started again: its worker died",
        "Ray: a step is started again: Task was killed, low on memory",
    ]


class FakeRay:
    """Two nodes of four cores and GPUs, one of which is gone; keeps what a task asks for."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.asked: dict[str, float] = {}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8, "GPU": 2 * self._gpus}

    def nodes(self) -> list[dict[str, Any]]:
        own = {"NodeManagerHostname": socket.gethostname(), "Alive": True}
        large = {**own, "Alive": False, "Resources": {"CPU": 64, "GPU": 64}}
        return [{**own, "Resources": {"CPU": 4, "GPU": self._gpus}}, large]

    def remote(self, **asked: float) -> Any:
        self.asked = asked
        return lambda function: function

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("gpus", "processes", "cores", "share", "slots"),
    [(4, 1, 1, 0.25, 8), (4, 2, 2, 2, 4), (0, 2, 2, 0, 4), (0, 1, 1, 0, 8)],
)
def test_a_model_of_several_processes_asks_for_as_many_devices(
    monkeypatch, gpus, processes, cores, share, slots
):
    fake = FakeRay(gpus)
    monkeypatch.setattr(ray_executor, "_connected", lambda address: fake)
    executor = RayExecutor(print, "auto", "auto", processes)
    assert (fake.asked["num_cpus"], fake.asked["num_gpus"]) == (cores, share)
    assert executor.slots == slots


def test_more_processes_than_a_living_node_has_devices_are_refused(monkeypatch):
    monkeypatch.setattr(ray_executor, "_connected", lambda address: FakeRay(2))
    said = "processes=3 are more than the 2 GPUs of the largest node; allowed: 1 to 2"
    with pytest.raises(UserError, match=said):
        RayExecutor(print, "cuda", "auto", 3)


@pytest.mark.cluster
def test_a_sweep_outlives_a_node_that_is_killed_in_its_middle(new_place, cluster, capsys):
    killed: list[int] = []

    def kill_when_both_nodes_work() -> None:
        deadline = time.monotonic() + 120
        while len(new_place.runs(status="RUNNING")) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        killed.append(len(new_place.runs(status="RUNNING")))
        cluster.remove_node(cluster.worker_node, allow_graceful=False)

    killer = threading.Thread(target=kill_when_both_nodes_work)
    killer.start()
    code = new_place.run(
        "sweep",
        executor="ray",
        address=cluster.address,
        temperatures="2",
        student__epochs="100",
        teacher__epochs="100",
    )
    killer.join()
    out, err = capsys.readouterr()
    assert code == 0, err
    assert killed == [2]
    assert "raylet" not in out.lower()
    assert re.search(r"\[3/3\] DS .*done 3, running 0, reused 0, failed 0", err)
    finished = new_place.runs(status="FINISHED")
    assert {run.data.tags["kd.role"] for run in finished} == {"teacher", "student", "distilled"}
    others = [run.info.status for run in new_place.runs() if run.info.status != "FINISHED"]
    assert others == ["KILLED"]
