# One image for all nine processes of the Procfile; the command chooses. docs/deploying.md says how to use it.
ARG PYTHON=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON} AS packages
COPY requirements.txt /tmp/
# The secret is for a network whose proxy has a certificate authority of its own.
RUN --mount=type=secret,id=ca \
    python3 -m venv /opt/venv && \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary=:all: -r /tmp/requirements.txt && \
    /opt/venv/bin/python -m pip uninstall --yes --quiet pip

FROM ${PYTHON}
# The base's own pip goes, too: nothing installs packages in a running container.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 LOG_FORMAT=json
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY LICENSE gateway.py deploy/healthcheck.py ./
COPY common common
COPY registry_service registry_service
COPY users_service users_service
COPY timelines_service timelines_service
COPY likes_service likes_service
COPY polls_service polls_service
# The commit that common/version.py reads, as the image has no .git.
ARG COMMIT=""
RUN printf %s "$COMMIT" >COMMIT && python -m compileall -q /app
LABEL org.opencontainers.image.title="microblog" \
      org.opencontainers.image.description="A microblog made of microservices: gateway, registry, services, workers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="$COMMIT"
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "healthcheck.py"]
CMD ["python", "gateway.py"]
