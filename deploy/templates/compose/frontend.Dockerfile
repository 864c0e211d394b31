# Written by `make deployment` from deploy/templates/compose/frontend.Dockerfile: change that one.
# The frontend, and the few commands that containers need beside it: `hermes2 model prepare`, `hermes2 keys`,
# deploy.containers. The build context is the repository's root (compose.yaml); .dockerignore lets in what is copied here.
FROM {{ images.python }} AS packages

# The lock file alone: a change of code installs nothing anew. Wheels only: nothing is compiled, no compiler is needed.
COPY deploy/environments/service.lock /tmp/service.lock
RUN python -m venv --without-pip /opt/hermes2/venv \
    && python -m pip --python /opt/hermes2/venv/bin/python install --no-deps --require-hashes --only-binary :all: \
    --no-cache-dir --disable-pip-version-check --root-user-action=ignore --requirement /tmp/service.lock \
    && find /opt/hermes2/venv -type d -name tests -prune -exec rm -rf {} +

FROM {{ images.python }}

ENV PATH=/opt/hermes2/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/hermes2 \
    PYTHONUNBUFFERED=1
# Docker gives a new volume the owner of the folder that it is put on. /cache is the engine's, with the user of its image.
RUN useradd --uid {{ users.frontend.split(":")[0] }} --user-group --no-create-home --shell /usr/sbin/nologin hermes2 \
    && install --directory --owner hermes2 --group hermes2 --mode 0700 /var/lib/hermes2 \
    && install --directory --owner hermes2 --group hermes2 /models /repository \
    && install --directory --owner {{ users.triton.split(":")[0] }} --group {{ users.triton.split(":")[1] }} /cache
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
    && install --directory venv/lib/python3.11/site-packages/hermes2_service-{{ version }}.dist-info \
    && printf '%s\n' 'Metadata-Version: 2.1' 'Name: hermes2-service' 'Version: {{ version }}' \
    > venv/lib/python3.11/site-packages/hermes2_service-{{ version }}.dist-info/METADATA \
    && python -m compileall -q frontend retrieval deploy

USER {{ users.frontend }}
EXPOSE {{ settings.port }}
CMD ["granian", "frontend.app:asgi", "--factory", "--interface", "asgi", \
     "--host", "0.0.0.0", "--port", "{{ settings.port }}", "--workers", "1", "--loop", "uvloop", "--no-ws", \
     "--http", "1", "--http1-header-read-timeout", "{{ http.head_timeout_ms }}", "--http1-buffer-size", "{{ http.buffer_bytes }}", \
     "--log-level", "warning", "--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", "{{ seconds.drain }}"]
