"""Composition root: build the server from its settings, run it, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator

from server.admission import CapacityRules
from server.alerting import Alerting
from server.bundle import Bundle, load_bundle
from server.contract import WINDOW_FRAMES
from server.cores import usable_cores
from server.engine.choice import Engine, EngineChoice, load_engine
from server.engine.pace import Bench, Pace, open_at_pace
from server.engine.plans import Batches
from server.garbage import set_aside
from server.history import HistoryLimits
from server.hub import Hub
from server.ingest.access import AccessPolicy
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings, decode_processes, decoders_at_once
from server.logs import set_up
from server.push import PushLimits
from server.rpc.server import RpcServer
from server.settings import Settings
from server.store.database import Database
from server.store.streams import StreamStore
from server.supervision import SupervisorSettings
from server.supervisor import Supervisor
from server.telemetry import Telemetry
from server.thread_names import ENGINE, thread_named
from server.views import ModelInfo
from server.web.port import HttpPort

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
DAY_SECONDS = 86_400.0
NATIVE_FPS = 25.0
STOP_SECONDS = 4.5
"""A stop that takes longer is cut short: supervisors kill after five seconds."""


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class App:
    """One server. `start` it and `stop` it once, in one event loop.

    Attributes:
        grpc_port: the port that gRPC listens on, once started.
        http_port: the same of the side port.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._not_ready: str | None = "starting"
        self._telemetry = Telemetry()
        self._http = HttpPort(settings.http, self._telemetry, lambda: self._not_ready)
        self._database: Database | None = None
        self._alerting: Alerting | None = None
        self._supervisor: Supervisor | None = None
        self._rpc: RpcServer | None = None
        self._stopping = threading.Event()
        there_are = usable_cores()
        self._budget_cores = settings.capacity.cores or there_are
        # More may be promised than there are; threads and processes for them would only wait.
        self._cores = min(self._budget_cores, there_are)

    @property
    def grpc_port(self) -> int:
        return self._rpc.port if self._rpc else 0

    @property
    def http_port(self) -> int:
        return self._http.port

    async def start(self) -> None:
        """Verify the bundle, warm the engine, take up the stored streams, open the ports.

        Raises:
            BundleError, EngineError, StoreError, ReceiverError, PortError: with one
                sentence each.
        """
        await self._http.start()
        bundle = await asyncio.to_thread(load_bundle, self._settings.bundle)
        detector, pace = await asyncio.to_thread(self._load_detector, bundle)
        model = model_info(bundle, detector)
        self._telemetry.model(model)
        engine = self._settings.engine
        self._telemetry.engine_requested(engine.name, engine.wanted_device)
        self._database = await asyncio.to_thread(Database, self._settings.store.url)
        alerting = Alerting(self._settings, self._database, self._telemetry)
        self._alerting = alerting
        store = StreamStore(self._database)
        self._supervisor = self._make_supervisor(bundle, detector, pace, store, alerting)
        self._rpc = RpcServer(
            self._supervisor,
            alerting.deliveries,
            self._settings.grpc,
            self._settings.push.max_message_mb * MIB,
        )
        # The port first: a second server by mistake must not touch the alerts of this one.
        self._rpc.bind()
        await alerting.start(self._supervisor.direct)
        await self._supervisor.start()
        # Served last: a stream that is not loaded yet would look deleted to who watches it.
        await self._rpc.start()
        set_aside()
        self._not_ready = None
        logger.info(
            "ready: bundle %s (%s), engine %s on %s, gRPC on port %d, HTTP on port %d",
            model.bundle_name,
            model.bundle_id[:12],
            model.engine,
            model.device,
            self.grpc_port,
            self.http_port,
        )

    async def stop(self) -> None:
        """Refuse new calls, end the watches, stop decoding and scoring, keep the sequences."""
        self._not_ready = "stopping"
        self._stopping.set()
        if self._rpc is not None:
            await self._rpc.stop()
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._alerting is not None:
            await self._alerting.stop()
        if self._database is not None:
            await asyncio.to_thread(self._database.close)
        await self._http.stop()

    def _load_detector(self, bundle: Bundle) -> tuple[Engine, Pace]:
        engine, largest = self._settings.engine, self._settings.batch.largest
        choice = EngineChoice(
            engine.name,
            engine.device,
            engine.threads,
            Batches(min(engine.preferred_batch or largest, largest), largest),
            engine.build,
            engine.plans,
        )
        size, window = bundle.manifest.preprocess, bundle.manifest.window
        bench = Bench(
            (window.sampled_frames, size.height, size.width, 3),
            largest,
            self._cores,
            windows_per_second(bundle),
            halves=self._settings.batch.max_batch is None,
        )
        with thread_named(ENGINE):  # the threads that it starts take the name
            return open_at_pace(
                choice,
                bench,
                lambda one: load_engine(bundle, one, self._stopping, self._telemetry.batch_resized),
            )

    def _make_supervisor(
        self,
        bundle: Bundle,
        detector: Engine,
        pace: Pace,
        store: StreamStore,
        alerting: Alerting,
    ) -> Supervisor:
        settings, manifest = self._settings, bundle.manifest
        access = AccessPolicy(
            file_roots=settings.access.file_roots,
            camera_networks=settings.access.camera_networks,
            listen_networks=settings.access.listen_networks,
        )
        workers = settings.ingest.workers or decode_processes(self._cores)
        ingest = IngestSettings(
            **settings.ingest.model_dump(exclude={"workers"}),
            workers=workers,
            decoding_at_once=decoders_at_once(self._cores, workers),
            access=access,
            evidence=settings.evidence.to_rules(settings.store.url),
            log_format=settings.log.format,
        )
        return Supervisor(
            detector,
            model_info(bundle, detector),
            SupervisorSettings(
                batch=settings.batch.to_values(pace.batch),
                alerts=settings.alerts.to_values(),
                max_streams=settings.max_streams,
                access=access,
                push=PushLimits(
                    settings.push.max_calls_per_client,
                    settings.push.max_frames_per_second,
                    settings.push.idle_seconds,
                ),
                history=HistoryLimits(
                    settings.history.days,
                    int(settings.history.max_mb * MIB),
                    settings.history.flush_seconds,
                    settings.history.check_seconds,
                ),
                capacity=CapacityRules(
                    self._budget_cores,
                    settings.capacity.share,
                    settings.capacity.admission == "enforce",
                    pace,
                    windows_per_second(bundle),
                ),
            ),
            store=store,
            telemetry=self._telemetry,
            keeper=alerting.keeper,
            scores=Hub(settings.grpc.watch_backlog, settings.grpc.max_watchers),
            desk=alerting.desk,
            make_pool=lambda take: IngestPool(
                ingest, manifest.window, manifest.preprocess, take, self._telemetry.worker_lost
            ),
        )


def model_info(bundle: Bundle, detector: Engine) -> ModelInfo:
    """What is served, and what really runs it."""
    manifest = bundle.manifest
    fps = manifest.window.fps
    return ModelInfo(
        bundle_id=bundle.bundle_id,
        bundle_name=manifest.name,
        encoder=manifest.encoder.name,
        engine=detector.name,
        precision=detector.precision,
        device=detector.device,
        threshold=manifest.threshold.value,
        window_seconds=None if fps is None else WINDOW_FRAMES / fps,
        fps=fps,
        sampled_frames=manifest.window.sampled_frames,
        height=manifest.preprocess.height,
        width=manifest.preprocess.width,
        feature_dim=manifest.encoder.feature_dim,
    )


def windows_per_second(bundle: Bundle) -> float:
    """Of a camera; where windows take native frames, of one at 25 frames a second."""
    return (bundle.manifest.window.fps or NATIVE_FPS) / WINDOW_FRAMES


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 after a clean stop.

    Raises:
        BundleError, EngineError, StoreError, PortError: the server could not start.
    """
    set_up(settings.log.level, settings.log.format)
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    asked_to_stop = asyncio.Event()
    with _stop_signals(asked_to_stop.set):
        return await _serve_until(asked_to_stop, App(settings))


async def _serve_until(asked_to_stop: asyncio.Event, app: App) -> int:
    starting = asyncio.create_task(app.start())
    stopping = asyncio.create_task(asked_to_stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
        logger.info("stopping")
    finally:
        starting.cancel()
        async with asyncio.timeout(STOP_SECONDS):
            await app.stop()
    logger.info("stopped")
    return 0


@contextlib.contextmanager
def _stop_signals(told: Callable[[], None]) -> Iterator[None]:
    """Call `told` in the running loop at SIGTERM and SIGINT; after a clean end ignore them.

    Not with the loop's own `add_signal_handler`: the loop makes them deadly again as it
    closes, and a server that is asked twice would die of that in its last moments.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    woken, waker = socket.socketpair()

    def wake() -> None:
        woken.recv(64)
        told()

    with woken, waker:
        waker.setblocking(False)
        loop.add_reader(woken, wake)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        after: dict[signal.Signals, signal.Handlers] = {}
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        try:
            yield
            after = dict.fromkeys(_STOP_SIGNALS, signal.SIG_IGN)
        finally:
            for number, handler in (before | after).items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            loop.remove_reader(woken)
