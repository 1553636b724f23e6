"""`moorage migrate`: bring the database up to date, as a step of its own."""

import typer

from moorage.adapters.postgres.migrate import login_password_of, login_user_of
from moorage.adapters.postgres.migrate import migrate as migrate_database
from moorage.cli.terminal import EXIT_USAGE, explained, settings_or_exit
from moorage.telemetry import set_up_logging


def migrate() -> None:
    """Migrate DATABASE_URL. The embedded Postgres is migrated by `serve` itself.

    With DATABASE_ADMIN_URL, as that user; the one whom DATABASE_URL names is made when there is none.
    """
    settings = settings_or_exit()
    set_up_logging(level=settings.log_level)
    if settings.database_url is None:
        typer.echo("moorage: DATABASE_URL is not set; the embedded Postgres migrates when the server starts", err=True)
        raise typer.Exit(EXIT_USAGE)
    url = settings.database_url.get_secret_value()
    admin = settings.database_admin_url
    with explained():
        if admin is None:
            migrate_database(url)
        else:
            user, password = login_user_of(url), login_password_of(url)
            migrate_database(admin.get_secret_value(), login_user=user, login_password=password)
    typer.echo("The database is up to date.")
