"""One number over all claims of runs, by which sandboxes tell a newer claim from an older one."""

from moorage.adapters.postgres.scripts import run_script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_script(__file__)
