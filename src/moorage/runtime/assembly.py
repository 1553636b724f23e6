"""Everything put together, opened in order and closed in reverse."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.checkpoint_reader import ThreadReader
from moorage.adapters.postgres.pool import open_database
from moorage.adapters.postgres.rules import PostgresRuleBook
from moorage.adapters.postgres.store import PostgresItemTable
from moorage.adapters.postgres.wire_threads import PostgresThreadLists
from moorage.agent.changes import change_inspector
from moorage.agent.graph_views import GraphViews
from moorage.agent.sandbox_files import ThreadFiles
from moorage.agent.states import States
from moorage.approvals import Approvals
from moorage.assistants import get_assistant
from moorage.files import Files
from moorage.runtime.administration import make_administration
from moorage.runtime.background import in_background
from moorage.runtime.crons import make_crons
from moorage.runtime.database import make_identity, open_postgres
from moorage.runtime.engine import Engine, open_engine
from moorage.runtime.intake import Intake
from moorage.runtime.runtime import Runtime
from moorage.runtime.snapshots import make_copies, remove_all_files
from moorage.runtime.webhooks import make_deliveries
from moorage.settings import Settings
from moorage.store import Store
from moorage.threads import Threads

_BLOCKING_CALLS = 64


@asynccontextmanager
async def open_runtime(settings: Settings, *, work: bool = True) -> AsyncGenerator[Runtime]:
    """Start everything and stop it again. Raises Unavailable or another AppError that says what is missing.

    Without `work` this process executes no runs; the workers on its database do.
    """
    executor = ThreadPoolExecutor(_BLOCKING_CALLS, thread_name_prefix="blocking")
    asyncio.get_running_loop().set_default_executor(executor)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_postgres(settings))
        database = await stack.enter_async_context(open_database(url))
        engine = await open_engine(settings, stack, database, url, work=work)
        life = timedelta(hours=settings.session_life_hours)
        approvals = PostgresApprovalStore(database, engine.event_log, on_decided=engine.queue.wake, session_life=life)
        runtime = _runtime(engine, approvals, url)
        async with in_background(engine, runtime, approvals):
            yield runtime


def _runtime(engine: Engine, approvals: PostgresApprovalStore, url: str) -> Runtime:
    settings, database = engine.settings, engine.database
    identity = make_identity(settings, database)
    files = ThreadFiles(engine.sandboxes)
    states = States(
        engine.agents, partial(ThreadReader, database), engine.load_assistant, fallback=get_assistant("deep")
    )
    return Runtime(
        settings=settings,
        identity=identity,
        threads=_threads(engine),
        thread_lists=PostgresThreadLists(database, session_life=timedelta(hours=settings.session_life_hours)),
        states=states,
        approvals=Approvals(approvals, inspect=change_inspector(files.read), resolve=files.resolve),
        rules=PostgresRuleBook(database),
        snapshots=engine.snapshots,
        copies=make_copies(settings, database, states, engine.sandboxes, engine.snapshots),
        files=Files(engine.sandboxes),
        assistants=engine.assistants,
        graph_views=GraphViews(engine.agents),
        store=Store(PostgresItemTable(database), quota=settings.store_max_items),
        runs=engine.runs,
        crons=make_crons(
            settings, database, engine.event_log, engine.assistants, engine.runs, on_submitted=engine.queue.wake
        ),
        deliveries=make_deliveries(settings, database, engine.thread_store, states),
        administration=make_administration(engine, identity, url),
        event_log=engine.event_log,
        sandbox_kind=engine.sandboxes.provider.name,
        sandbox_note=engine.sandboxes.provider.isolation_note,
        model_name=engine.model_name,
        database=database,
        database_url=url,
        executes=engine.worker is not None,
        worker_name=engine.worker_name,
        intake=Intake(),
    )


def _threads(engine: Engine) -> Threads:
    return Threads(
        engine.thread_store,
        quota=engine.settings.quota_active_sessions,
        stop_runs=engine.runs.stop_for_good,
        remove_files=partial(remove_all_files, engine.sandboxes, engine.snapshots),
    )
