"""Keys with which programs call the API, and tickets for WebSockets."""

from moorage.adapters.postgres.scripts import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_script(__file__)
