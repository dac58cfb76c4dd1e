# syntax=docker/dockerfile:1
# The server without torch, compiler or root, on a CPU (the last stage, so the default) or a GPU;
# and the training package. From the repository's root:
#   docker build -t gvvad .
#   docker build -t gvvad:gpu --target runtime-gpu .
#   docker build -t gvvad:train --target train .
# deploy/README.md tells how to run them and what was tried of this file without Docker.

# A tag can be moved. No registry was at hand to ask for the digest; a build that must be repeatable
# gives it: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# Who runs everything: a fixed number, so that volumes and Kubernetes can rely on it.
FROM ${PYTHON_IMAGE} AS base
RUN groupadd --gid 10001 gvvad \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin gvvad \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data

# The project's wheel. Its own pip, so that the environments that are shipped have none.
FROM base AS build
WORKDIR /source
COPY deploy/requirements/build.txt deploy/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement deploy/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY training training
COPY export export
COPY protos protos
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels .

FROM build AS venv-cpu
COPY deploy/requirements/cpu.txt deploy/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/gvvad \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install \
        --only-binary :all: --require-hashes --requirement deploy/requirements/cpu.txt \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python check

FROM build AS venv-gpu
ARG TENSORRT_INDEX=https://pypi.nvidia.com
COPY deploy/requirements/gpu.txt deploy/requirements/tensorrt.txt deploy/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/gvvad \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install \
        --only-binary :all: --require-hashes --requirement deploy/requirements/gpu.txt \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install --no-deps \
        --index-url "${TENSORRT_INDEX}" --requirement deploy/requirements/tensorrt.txt \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install --no-deps --no-index /wheels/*.whl

FROM build AS venv-train
COPY deploy/requirements/train.txt deploy/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/gvvad \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install \
        --require-hashes --requirement deploy/requirements/train.txt \
    && /opt/build/bin/pip --python /opt/gvvad/bin/python install --no-deps --no-index /wheels/*.whl

FROM base AS train
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gvvad-train" \
    org.opencontainers.image.description="Trains and exports the detectors that gvvad serves" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=venv-train /opt/gvvad /opt/gvvad
ENV PATH=/opt/gvvad/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["gvvad-train"]
CMD ["--help"]

# All that the two runtimes share. Nothing but /data and /tmp is written.
FROM base AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gvvad" \
    org.opencontainers.image.description="Real-time surveillance anomaly server" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# The bytecode came with the installation; the default store, gvvad.db, lies in the working directory.
ENV PATH=/opt/gvvad/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GVVAD_GRPC__HOST=0.0.0.0 \
    GVVAD_HTTP__HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# Ready: the bundle is verified, the engine warm. Failures before that count only after the start period,
# which leaves TensorRT the minutes that it builds a plan in.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('GVVAD_HTTP__PORT', 9464)), timeout=3); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["gvvad"]
CMD ["serve"]

# CUDA comes as wheels of NVIDIA's, so the base is the same; the driver comes from the host by NVIDIA's
# container toolkit. The two folders are where those wheels keep what ONNX Runtime loads.
FROM runtime AS runtime-gpu
COPY --from=venv-gpu /opt/gvvad /opt/gvvad
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/gvvad/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/gvvad/lib/python3.11/site-packages/nvidia/cudnn/lib

FROM runtime AS runtime-cpu
COPY --from=venv-cpu /opt/gvvad /opt/gvvad
