"""Execution on a Ray cluster: Ray queues and places the steps, and retries those whose node died.

Every node needs kdplatform installed, the data folder under the same path (shared or its own), and
access to the tracking server.
"""

import logging
import math
import re
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import mlflow
import torch

from kdplatform.errors import MachineError, UserError, one_line
from kdplatform.experiments.executors.base import (
    MODELS_PER_GPU,
    Assignment,
    Executor,
    Outcome,
    Task,
)
from kdplatform.progress import say
from kdplatform.registry import optional_module
from kdplatform.stores import is_server

# Number of restarts of a step whose worker or node died.
_RETRIES = 3
# Ray's message about a task that it tries again.
_LOST = re.compile(r"Task \S+ failed\. There are \d+")
_ANSWER_SECONDS = 10


class RayExecutor(Executor):
    """Steps as Ray tasks with one core each, and a fraction of a GPU if the cluster has GPUs.

    If several processes train a model, a task requests as many cores, and as many whole GPUs, on
    one node.

    Args:
        task: the function that carries out an assignment.
        device: the requested device; auto: cuda when the cluster has GPUs.
        address: `auto` for the cluster of this machine or of $RAY_ADDRESS, otherwise host:port.
        processes: number of processes that train a model together.

    Raises:
        UserError: Ray is not installed, the cluster lacks the device, no node has devices for this
            many processes, or its nodes cannot reach the tracking store.
        MachineError: no cluster answers at the address.
    """

    def __init__(self, task: Task, device: str, address: str, processes: int = 1) -> None:
        ray = _connected(address)
        try:
            resources = ray.cluster_resources()
            gpus = resources.get("GPU", 0)
            on_gpu = gpus > 0 if device == "auto" else device != "cpu"
            if on_gpu and gpus == 0:
                raise UserError(
                    f"device={device!r}: the Ray cluster has no GPU; allowed: auto | cpu"
                )
            kind = "GPU" if on_gpu else "CPU"
            most = int(max(node["Resources"].get(kind, 0) for node in _alive(ray)))
            if processes > most:
                raise UserError(
                    f"processes={processes} are more than the {most} {kind}s of the largest node; "
                    f"allowed: 1 to {most}"
                )
            _check_store_is_shared([node["NodeManagerHostname"] for node in ray.nodes()])
        except BaseException:
            ray.shutdown()
            raise
        # A task sees only the GPU that Ray assigned to it.
        self._device = "cuda" if on_gpu else "cpu"
        share = 1 / MODELS_PER_GPU if processes == 1 else processes
        slots = min(resources["CPU"] / processes, gpus / share if on_gpu else math.inf)
        self.slots = max(1, int(slots))
        self._ray = ray
        self._task = task
        self._remote = ray.remote(
            num_cpus=processes, num_gpus=share if on_gpu else 0, max_retries=_RETRIES
        )(_on_its_cores)
        self._references: list[Any] = []

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Hands a step to the cluster."""
        reference = self._remote.remote(self._task, replace(assignment, device=self._device))
        self._references.append(reference)
        future: Future[Outcome] = reference.future()
        return future

    def __exit__(self, *_: object) -> None:
        """Cancels unfinished steps and disconnects from the cluster, which keeps running."""
        for reference in self._references:
            self._ray.cancel(reference)
        self._ray.shutdown()


def _on_its_cores(task: Task, assignment: Assignment) -> Outcome:
    torch.set_num_threads(assignment.processes)
    return task(assignment)


def _alive(ray: Any) -> list[Any]:
    return [node for node in ray.nodes() if node["Alive"]]


def _connected(address: str) -> Any:
    """Returns the module `ray`, connected to the cluster."""
    ray = optional_module("ray", needed_by="executor='ray'", extra="ray")
    _check_answer(address)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        # The printed lines of a step are part of its outcome.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        raise _no_cluster(address, one_line(error)) from None
    finally:
        signal.signal(signal.SIGTERM, terminate)
    # Ray prints these messages on stdout, with the last lines of its logs, whatever log_to_driver
    # is.
    ray._private.worker.print_to_stdstream = say_remark
    return ray


def say_remark(data: Mapping[str, Any], **_: object) -> None:
    """Prints Ray's messages about the cluster, one line each.

    Args:
        data: Ray's data; `lines` has one text per message.
    """
    for remark in data["lines"]:
        text = str(remark).strip()
        if _LOST.match(text):
            reason = text.partition("Error: ")[2].strip() or "its worker died"
            say(f"Ray: a step is started again: {_first_sentence(reason)}")
        else:
            say(f"Ray: {_first_sentence(text)}")


def _first_sentence(text: str) -> str:
    """Returns the beginning of Ray's messages, which continue with causes and logs."""
    return one_line(text.partition("\n")[0]).partition(". ")[0]


def _check_answer(address: str) -> None:
    """Refuses an address without a listening server; Ray itself would try for two minutes."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise UserError(f"address={address!r} is not allowed; allowed: auto | host:port")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> MachineError:
    return MachineError(
        f"address={address!r}: no Ray cluster answers ({reason}); allowed: auto | host:port of a "
        "cluster that was started with: ray start --head"
    )


def _check_store_is_shared(hosts: list[str]) -> None:
    uri = mlflow.get_tracking_uri()
    others = sorted(set(hosts) - {socket.gethostname()})
    if others and not is_server(uri):
        raise UserError(
            f"MLFLOW_TRACKING_URI={uri!r} is a store of this machine, which {others[0]} cannot "
            "write to; allowed with executor='ray' on several machines: the http address of an "
            "MLflow server"
        )
