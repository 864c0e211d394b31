# Written by `make deployment` from deploy/templates/compose/frontend.Dockerfile: change that one.
# The frontend, and the few commands that containers need beside it: `hermes2 model prepare`, `hermes2 keys`,
# deploy.containers. The build context is the repository's root (compose.yaml); .dockerignore lets in what is copied here.
FROM python:3.11-slim-bookworm AS packages

# The lock file alone: a change of code installs nothing anew. Wheels only: nothing is compiled, no compiler is needed.
COPY deploy/environments/service.lock /tmp/service.lock
RUN python -m venv --without-pip /opt/hermes2/venv \
    && python -m pip --python /opt/hermes2/venv/bin/python install --no-deps --require-hashes --only-binary :all: \
    --no-cache-dir --disable-pip-version-check --root-user-action=ignore --requirement /tmp/service.lock \
    && find /opt/hermes2/venv -type d -name tests -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm

ENV PATH=/opt/hermes2/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/hermes2 \
    PYTHONUNBUFFERED=1
# Docker gives a new volume the owner of the folder that it is put on. /cache is the engine's, with the user of its image.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hermes2 \
    && install --directory --owner hermes2 --group hermes2 --mode 0700 /var/lib/hermes2 \
    && install --directory --owner hermes2 --group hermes2 /models /repository \
    && install --directory --owner 1000 --group 1000 /cache
COPY --from=packages /opt/hermes2/venv /opt/hermes2/venv
WORKDIR /opt/hermes2
COPY LICENSE ./
COPY model_repository ./model_repository
COPY retrieval ./retrieval
COPY deploy ./deploy
COPY frontend ./frontend
# The command line, the version that metrics and traces tell, and compiled code: the running container can write none of them.
RUN printf '%s\n' '#!/opt/hermes2/venv/bin/python' 'from deploy.launcher.cli import main' 'main()' > venv/bin/hermes2 \
    && chmod 0755 venv/bin/hermes2 \
    && install --directory venv/lib/python3.11/site-packages/hermes2_service-0.1.0.dist-info \
    && printf '%s\n' 'Metadata-Version: 2.1' 'Name: hermes2-service' 'Version: 0.1.0' \
    > venv/lib/python3.11/site-packages/hermes2_service-0.1.0.dist-info/METADATA \
    && python -m compileall -q frontend retrieval deploy

USER 10001:10001
EXPOSE 11401
CMD ["granian", "frontend.app:asgi", "--factory", "--interface", "asgi", \
     "--host", "0.0.0.0", "--port", "11401", "--workers", "1", "--loop", "uvloop", "--no-ws", \
     "--http", "1", "--http1-header-read-timeout", "30000", "--http1-buffer-size", "65536", \
     "--log-level", "warning", "--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", "30"]
