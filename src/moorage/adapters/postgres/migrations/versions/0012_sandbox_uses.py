"""Sandboxes through which files are moved."""

from moorage.adapters.postgres.scripts import run_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_script(__file__)
