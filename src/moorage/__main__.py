"""`python -m moorage` is `moorage`."""

from moorage.cli import app

if __name__ == "__main__":
    app()
