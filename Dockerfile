# One image for api, worker, migrate and ai. Slim Debian rather than Alpine: the wheels want glibc.
# Pinned by version; the machine that wrote this had no registry, so pin the digest when you build:
#   docker build --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:... .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS packages
COPY deploy/runtime.lock /tmp/runtime.lock
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r /tmp/runtime.lock

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin studio
COPY --from=packages /venv /venv
COPY . /app
RUN /venv/bin/python -m compileall -q /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STUDIO_HOST=0.0.0.0
USER 10001
EXPOSE 8010
ENTRYPOINT ["/app/deploy/entrypoint.sh"]
CMD ["api"]
