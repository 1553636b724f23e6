#!/bin/sh
# uv. Outside of a virtual environment `uv pip install` does as pip does here: it installs into ~/.local, for nobody
# may write to the system's Python.
uv=/usr/local/libexec/uv
[ "${1:-}" = pip ] && [ "${2:-}" = install ] && [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || exec "$uv" "$@"
system=--system
for argument; do
  case $argument in
  --system) system= ;; # said already
  --target | --target=* | -t | --prefix | --prefix=* | --python | --python=* | -p* | --help | -h) exec "$uv" "$@" ;;
  esac
done
folder=$PWD
while :; do
  [ ! -e "$folder/.venv/pyvenv.cfg" ] || exec "$uv" "$@"
  [ -n "$folder" ] || break
  folder=${folder%/*}
done
shift 2
exec "$uv" pip install $system --prefix "$HOME/.local" "$@"
