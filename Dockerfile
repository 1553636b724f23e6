# The server's image. It needs no BuildKit:  docker build --tag moorage .
# BASE may be any Debian image with Python >= 3.12 and pip. Behind a proxy with a certificate of its own, put the
# bundle into .build/ca-bundle.crt: it is used while building and does not end up in the image.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS uv
WORKDIR /app
COPY pyproject.toml .build* /inputs/
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_PROJECT_ENVIRONMENT=/app/.venv
RUN if [ -f /inputs/ca-bundle.crt ]; then export PIP_CERT=/inputs/ca-bundle.crt; fi \
    && python3 -m pip install -q --no-cache-dir --target /opt/uv uv
COPY pyproject.toml uv.lock README.md LICENSE ./

# The web UI, with a Node from PyPI that stays behind here. A change of the server's code does not build it again.
FROM uv AS web
RUN if [ -f /inputs/ca-bundle.crt ]; then export SSL_CERT_FILE=/inputs/ca-bundle.crt; fi \
    && /opt/uv/bin/uv sync --quiet --locked --only-group web --python "$(command -v python3)" \
    && mkdir -p api/moorage_api
COPY scripts/web-build scripts/web-npm scripts/
COPY design/openapi.json design/
COPY web web
RUN if [ -f /inputs/ca-bundle.crt ]; then export NODE_EXTRA_CA_CERTS=/inputs/ca-bundle.crt; fi \
    && scripts/web-build && rm -rf web/node_modules /root/.npm

FROM uv AS build
# The dependencies first: a change of our own code alone does not install them again.
RUN if [ -f /inputs/ca-bundle.crt ]; then export SSL_CERT_FILE=/inputs/ca-bundle.crt; fi \
    && /opt/uv/bin/uv sync --quiet --locked --no-dev --no-install-project --python "$(command -v python3)"
COPY scripts/build_backend.py scripts/web-build scripts/
COPY src src
COPY api api
COPY --from=web /app/api/moorage_api/web api/moorage_api/web
RUN if [ -f /inputs/ca-bundle.crt ]; then export SSL_CERT_FILE=/inputs/ca-bundle.crt; fi \
    && /opt/uv/bin/uv sync --quiet --locked --no-dev --no-editable

FROM ${BASE}
# For the broker, which makes workspaces that are file systems of their own.
RUN apt-get update -q && apt-get install -y -q --no-install-recommends e2fsprogs mount \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin moorage \
    && install -d -o moorage -g moorage /data /data/state \
    && install -d /data/workspaces /data/shared_files /run/moorage
COPY scripts/compose-secrets /usr/local/bin/
# Nothing can be written at run time, compiled modules neither: without them each start takes seconds.
RUN python3 -m compileall -q -j0 "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" >/dev/null || true
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 \
    DATA_DIR=/data/state WORKSPACE_ROOT=/data/workspaces SHARED_DIR=/data/shared_files
WORKDIR /data
USER moorage
EXPOSE 8000
ENTRYPOINT ["moorage"]
CMD ["serve"]
