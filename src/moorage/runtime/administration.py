"""What administrators do over the API, put together."""

from dataclasses import dataclass
from datetime import timedelta

from moorage.adapters.postgres.totals import PostgresTotals
from moorage.identity import Identity
from moorage.identity.accounts import Accounts
from moorage.runtime.engine import Engine
from moorage.runtime.server_checks import ServerChecks
from moorage.sandboxes.operating import Operating


@dataclass(frozen=True, slots=True)
class Administration:
    """Accounts, sandboxes, findings and numbers; nobody's threads, messages or files."""

    accounts: Accounts
    sandboxes: Operating
    checks: ServerChecks
    totals: PostgresTotals


def make_administration(engine: Engine, identity: Identity, url: str) -> Administration:
    settings, provider = engine.settings, engine.sandboxes.provider
    return Administration(
        accounts=Accounts(identity),
        sandboxes=Operating(provider, engine.busy_threads),
        checks=ServerChecks(settings, provider, database_url=url),
        totals=PostgresTotals(engine.database, session_life=timedelta(hours=settings.session_life_hours)),
    )
