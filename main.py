"""`python main.py` is `moorage serve`."""

import sys

from moorage.cli import app

if __name__ == "__main__":
    app(["serve", *sys.argv[1:]])
