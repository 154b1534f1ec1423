"""A pool of Ray actors on one machine or a cluster; each loads the model once.

Ray restarts workers that die.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

from findnemo.errors import DeviceError, FindnemoError, FindnemoWarning, InputError
from findnemo.runs.workers import AIM, Facts, Loader, Outcome, Step, WorkerTask, do_task
from findnemo.runtime.threads import cores

OBJECT_STORE = 256 * 2**20  # bytes of shared memory on this machine: tasks and answers are small
ASKS = (
    "; if it asks for a token, as `ray start` does by default: RAY_AUTH_MODE=token, and the token"
    " in ~/.ray/auth_token"
)
START = 600.0  # seconds within which a first worker must have loaded its model
STARTS = 3  # how often a worker tries to load its model, if its process dies
WAIT = 5.0  # seconds between two looks at the state of the workers


class Worker:
    """What runs in an actor's process."""

    def __init__(self, loader: Loader, threads: int):
        self.loader = loader
        self.threads = threads
        self.model: Any = None
        self.step: tuple[Any, Step] | None = None

    def ready(self) -> tuple[int, Facts] | FindnemoError:
        """Load the model; return the process id and what the driver must know about the model."""
        import torch

        from findnemo.runtime.quiet import quiet_libraries

        torch.set_num_threads(self.threads)
        quiet_libraries()
        warnings.simplefilter("ignore", FindnemoWarning)  # the driver names captions by their rows
        try:
            self.model = self.loader.load()
        except FindnemoError as error:
            return error
        return os.getpid(), Facts.of(self.model)

    def do(
        self, steps: list[Any], task: WorkerTask
    ) -> tuple[tuple[list[Any], ...], tuple[float, ...]]:
        """Do a task. Its step is fetched once, because it holds loaded judges.

        Raises RuntimeError in a process that has loaded no model.
        """
        import ray

        if self.model is None:
            raise RuntimeError("the worker died and was started again")
        if self.step is None or self.step[0] != steps[0]:
            self.step = steps[0], ray.get(steps[0])
        done = do_task(self.model, self.step[1], task)
        return done.results, done.seconds


@dataclass(eq=False)
class _Hand:
    """One actor as the driver sees it.

    `answer`: the pending result, of loading the model or of `task`. `pid`: its process id, once the
    model is loaded.
    """

    actor: Any
    answer: Any
    task: WorkerTask | None = None
    pid: int | None = None


class RayPool:
    """A pool of `workers` actors that answer tasks; see `runs.workers.Pool`.

    `loader`: opens the model in each worker. `workers`: by default one for every GPU, without GPUs
    one for every CPU. `address`: a running cluster ("auto", "ray://host:10001", "host:6379"); None
    starts Ray on this machine. `threads`: CPU threads of each worker; the last bits of a score
    depend on their number. With GPUs every worker has one of its own.

    Raises InputError (Ray is not installed, no such cluster, more workers than GPUs), or the error
    of a worker that cannot load the model. `replaced`: how many workers died and were started
    again. `alive`: how many have loaded their model.

        with RayPool(Loader("CompVis/stable-diffusion-v1-4"), workers=8) as pool:
            audit(Work(run, pool.model, calibration, plan), prompts, pool=pool)
    """

    aim = AIM

    def __init__(
        self,
        loader: Loader,
        workers: int | None = None,
        address: str | None = None,
        threads: int = 1,
    ):
        self._ray = _imported()
        self._mine = _connect(self._ray, address, workers)
        try:
            resources = self._ray.cluster_resources()
            self.gpus = 0 if loader.device == "cpu" else int(resources.get("GPU", 0))
            self.size = workers or self.gpus or max(1, int(resources.get("CPU", 1)) // threads)
            if address is not None and not self.gpus and loader.device != "cpu":
                raise InputError(
                    f"the cluster at {address} has no GPU, or none yet: wait until it has, or give"
                    " --device cpu"
                )
            if self.gpus and address is None and self.size > self.gpus:
                raise InputError(
                    f"{self.size} workers need as many GPUs, there are {self.gpus}: give --workers"
                    f" {self.gpus}"
                )
            self.loader = loader
            self.threads = threads
            self.replaced = 0
            self._facts: Facts | None = None
            self._step: tuple[Step, Any] | None = None  # the stage in progress
            self._hands = [self._hire() for _ in range(self.size)]
            self.model = self._first_facts()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and Ray if this pool started it."""
        for hand in getattr(self, "_hands", ()):
            self._ray.kill(hand.actor)
        self._hands = []
        if self._mine:
            self._ray.shutdown()

    @property
    def alive(self) -> int:
        """How many workers have loaded their model."""
        return sum(hand.pid is not None for hand in self._hands)

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers, on their machines."""
        return [hand.pid for hand in self._hands if hand.pid is not None]

    # the interface that `drive` uses

    def room(self) -> int:
        return sum(hand.answer is None for hand in self._hands)

    def submit(self, step: Step, task: WorkerTask) -> None:
        hand = next(hand for hand in self._hands if hand.answer is None)
        hand.task = task
        hand.answer = hand.actor.do.options(max_task_retries=0).remote([self._sent(step)], task)

    def wait(self) -> list[Outcome]:
        answers = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        if not answers:
            return []
        ready, _ = self._ray.wait([*answers], num_returns=1, timeout=WAIT)
        if ready:
            ready, _ = self._ray.wait([*answers], num_returns=len(answers), timeout=0)
        hands = [answers[reference] for reference in ready]
        outcomes = [self._ended(hand, hand.task) for hand in hands if hand.task is not None]
        for hand in hands:
            if hand.pid is None and hand.answer in ready:
                self._welcome(hand)
        return outcomes

    # start and death of workers

    def _hire(self) -> _Hand:
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        actor_class = self._ray.remote(Worker).options(
            num_cpus=1 if self.gpus else self.threads,
            num_gpus=1 if self.gpus else 0,
            max_restarts=-1,
            max_task_retries=STARTS - 1,  # for `ready`
            runtime_env={"env_vars": variables},
        )
        actor = actor_class.remote(self.loader, self.threads)
        return _Hand(actor, actor.ready.remote())

    def _first_facts(self) -> Facts:
        began = time.monotonic()
        while self._facts is None:
            self.wait()
            if time.monotonic() - began > START:
                raise DeviceError(
                    f"no worker was ready within {START:.0f} seconds: Ray has"
                    f" {self._ray.available_resources()}, a worker needs"
                    f" {'a GPU' if self.gpus else f'{self.threads} CPUs'}"
                )
        return self._facts

    def _welcome(self, hand: _Hand) -> None:
        """Take in a worker that has loaded its model, or dismiss one that failed.

        Raises the error of the last worker that fails.
        """
        try:
            answer = self._ray.get(hand.answer)
        except self._ray.exceptions.RayError as error:
            answer = DeviceError(
                f"workers die while they load the model ({_reason(error)}): fewer workers may fit"
                " the memory"
            )
        if isinstance(answer, FindnemoError):
            self._hands.remove(hand)
            self._ray.kill(hand.actor)
            if not self._hands:
                raise answer
            return
        hand.pid, facts = answer
        hand.answer = None
        self._facts = self._facts or facts
        differences = facts.identity.differences(self._facts.identity)
        if differences or facts.dtype != self._facts.dtype:
            what = "; ".join(differences) or f"{facts.dtype} instead of {self._facts.dtype}"
            raise InputError(
                f"workers have loaded different models from {self.loader.source} ({what}): give all"
                " machines the same files"
            )

    def _again(self, hand: _Hand) -> None:
        """Load the model again in the process that Ray started in place of a dead one."""
        hand.answer = hand.actor.ready.remote()
        hand.task = None
        hand.pid = None
        self.replaced += 1

    def _ended(self, hand: _Hand, task: WorkerTask) -> Outcome:
        """The outcome of a worker's task.

        Raises the error of the step, as one process would, except for errors of the worker's
        machine.
        """
        try:
            results, seconds = self._ray.get(hand.answer)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if cause is not None and not isinstance(cause, (RuntimeError, MemoryError)):
                raise cause from error
            if cause is not None:  # after CUDA errors the process lives, but cannot be trusted
                self._ray.kill(hand.actor, no_restart=False)
            self._again(hand)
            return Outcome(task, lost=_reason(error))
        hand.answer = None
        hand.task = None
        return Outcome(task, results, seconds)

    def _sent(self, step: Step) -> Any:
        """The step in Ray's object store, where it is put once."""
        if self._step is None or self._step[0] is not step:
            self._step = step, self._ray.put(step)
        return self._step[1]


def _reason(error: Exception) -> str:
    """The error of Ray, in one line."""
    cause = getattr(error, "cause", None) or error
    text = f"{type(cause).__name__}: {cause}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = [line for line in lines if "exit type" in line or "memory" in line.lower()]
    told = " ".join(dict.fromkeys([lines[0], *why[:1]]))
    return " ".join(told[:300].split())


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports nothing to anyone
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
        import ray.exceptions  # noqa: F401
    except ImportError as error:
        raise InputError("several workers need Ray: pip install findnemo[ray]") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> bool:
    """Connect to a cluster, or start Ray on this machine; return whether Ray was started here.

    An open session of Ray is used.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {
            "num_cpus": max(workers or 0, cores()),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(address="local" if address is None else address, **options)
        return True
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "this machine" if address is None else f"the cluster at {address}"
        why = f"Ray cannot be used on {where}: {str(error).splitlines()[0]}"
        raise InputError(
            why if address is None or "RAY_AUTH_MODE" in os.environ else why + ASKS
        ) from error
