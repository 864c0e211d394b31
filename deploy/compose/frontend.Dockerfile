# The frontend alone, without launcher and engine. The build context is the repository's root (see compose.yaml).
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/hermes2 \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hermes2 \
    && install --directory --owner hermes2 --group hermes2 --mode 0700 /var/lib/hermes2
WORKDIR /opt/hermes2

# The lock file first: a change of code installs nothing anew.
COPY deploy/environments/service.lock ./
RUN python -m pip install --no-deps --require-hashes --no-cache-dir --disable-pip-version-check \
    --root-user-action=ignore --requirement service.lock
COPY LICENSE ./
COPY retrieval ./retrieval
COPY frontend ./frontend

USER 10001:10001
EXPOSE 11401
CMD ["granian", "frontend.app:asgi", "--factory", "--interface", "asgi", \
     "--host", "0.0.0.0", "--port", "11401", "--workers", "1", "--loop", "uvloop", "--no-ws", \
     "--http", "1", "--http1-header-read-timeout", "30000", "--http1-buffer-size", "65536", \
     "--log-level", "warning", "--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", "30"]
