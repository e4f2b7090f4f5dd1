"""Execution in processes of this machine, which share its cores."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from queue import SimpleQueue
from typing import Self

import torch
from tqdm import tqdm

from kdplatform import interruption
from kdplatform.errors import MachineError
from kdplatform.experiments.executors.base import (
    MODELS_PER_GPU,
    Assignment,
    Executor,
    Outcome,
    Task,
)
from kdplatform.machine import usable_cores

# Total number of attempts of a step whose worker dies.
_ATTEMPTS = 2
# Time for a worker to close its run if the sweep is interrupted.
_GRACE_SECONDS = 10.0
# Variables that the numerical libraries read when they are loaded, before a worker's first own
# line.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Modules that every worker needs, imported once for all of them. torch and MLflow import the last
# four at their first use: for an optimiser, a model's export, a store and the origin of a run.
_IMPORTED_ONCE = [
    "kdplatform.experiments.executors.worker",
    "torch._dynamo",
    "mlflow.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
    "git",
]


class LocalExecutor(Executor):
    """Worker processes, each of which trains one step at a time.

    Every worker is a separate process pool, so a worker that dies (out of memory, killed) does not
    break another. It is replaced, and its step is tried once more, then given up.

    Args:
        task: the function that carries out an assignment.
        device: the requested device; `auto` and `cuda` spread the workers over all GPUs.
        workers: processes; None: one per core on the CPU, `MODELS_PER_GPU` per GPU.
        steps: number of steps; more workers are not started.
        processes: number of processes that train a model together, on the worker's device and the
            following ones.
    """

    def __init__(
        self, task: Task, device: str, workers: int | None, steps: int, processes: int = 1
    ) -> None:
        devices = _devices(device)
        cores = usable_cores()
        most = cores if devices[0] == "cpu" else min(cores, MODELS_PER_GPU * len(devices))
        if processes > 1 and devices[0] == "cpu":
            most = cores // processes
        elif processes > 1:
            devices = devices[: len(devices) // processes * processes : processes] or devices[:1]
            most = len(devices)
        self.slots = max(1, min(workers or most, steps))
        self._threads = max(1, cores // self.slots)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [
            _Worker(task, devices[number % len(devices)], self._threads)
            for number in range(self.slots)
        ]
        for worker in self._workers:
            self._idle.put(worker)
        # Each thread waits for one worker, so the thread pool's queue is the queue of steps.
        self._waiters = ThreadPoolExecutor(self.slots)

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Submits a step to the next idle worker."""
        return self._waiters.submit(self._run, assignment)

    def _run(self, assignment: Assignment) -> Outcome:
        worker = self._idle.get()
        try:
            return worker.run(assignment)
        finally:
            self._idle.put(worker)

    def __enter__(self) -> Self:
        """Limits the threads of processes that are started from now on."""
        self._environment = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
        os.environ |= dict.fromkeys(_THREAD_VARIABLES, str(self._threads))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the workers; after an error in the block, even in the middle of their steps."""
        if kind is not None:
            for worker in self._workers:
                worker.interrupt()
            deadline = time.monotonic() + _GRACE_SECONDS
            for worker in self._workers:
                worker.kill_at(deadline)
        self._waiters.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()
        for name, value in self._environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Worker:
    """One process at a time, which is replaced if it dies."""

    def __init__(self, task: Task, device: str, threads: int) -> None:
        self._task = task
        self._device = device
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._process_id: int | None = None
        self._interrupted = False

    def run(self, assignment: Assignment) -> Outcome:
        """Runs a step in the process.

        Raises:
            MachineError: the process died in every attempt.
        """
        assignment = replace(assignment, device=self._device)
        for _ in range(_ATTEMPTS):
            try:
                pool = self._started()
                if self._interrupted:
                    break
                return pool.submit(_run_or_leave, self._task, assignment).result()
            except BrokenProcessPool:
                self.close()
        raise MachineError(
            f"its worker process died {_ATTEMPTS} times (killed, or the memory was full); "
            "fewer workers need less memory"
        )

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1,
                mp_context=_processes_without_state(self._device),
                initializer=_start_worker,
                initargs=(self._threads,),
            )
            self._process_id = self._pool.submit(os.getpid).result()
        return self._pool

    def interrupt(self) -> None:
        """Asks the process to close its run and exit."""
        self._interrupted = True
        for process in self._processes():
            process.terminate()

    def kill_at(self, deadline: float) -> None:
        """Waits for the process to exit, and kills it after the deadline."""
        for process in self._processes():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()

    def _processes(self) -> list[multiprocessing.process.BaseProcess]:
        children = multiprocessing.active_children()
        return [process for process in children if process.pid == self._process_id]

    def close(self) -> None:
        """Ends the process as soon as it is idle; the next step gets a new one."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _processes_without_state(device: str) -> BaseContext:
    """Returns the context for processes that share no lock, thread or connection with this one.

    On a CPU they are forked from a server that has only imported modules, which saves the seconds
    of importing. On a GPU they are fresh processes, because an import that uses the device would
    make it unusable in every fork.
    """
    if device != "cpu" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    return context


def _devices(device: str) -> list[str]:
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu" if device == "auto" else device]


def _start_worker(threads: int) -> None:
    """Prepares a worker process: its threads, its signals, its end."""
    torch.set_num_threads(threads)
    # tqdm's lock is a system semaphore, which an ended worker would leave behind.
    tqdm.set_lock(threading.RLock())
    # Ctrl-C and the end of a terminal reach all its processes. The main process decides for the
    # workers.
    for signal_of_all in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_of_all, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_sweep, daemon=True).start()


def _leave_with_the_sweep() -> None:
    """Ends the process if the sweep is gone, which a pool's process would not notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run_or_leave(task: Task, assignment: Assignment) -> Outcome:
    """Runs a step; on SIGTERM closes its run and ends the process."""
    try:
        with interruption.noted([signal.SIGTERM]):
            return task(assignment)
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        _leave_libraries_uncollected()


@cache
def _leave_libraries_uncollected() -> None:
    """Excludes loaded objects from garbage collection, which saves 0.4 s per full collection."""
    gc.collect()
    gc.freeze()
