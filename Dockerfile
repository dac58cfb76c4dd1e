# The server on a CPU: no torch, no compiler, no root. Built from the repository's root:
#   docker build -t gvvad .
#   docker run -p 127.0.0.1:50051:50051 -p 127.0.0.1:9464:9464 -v gvvad:/data gvvad
# This file has not been built yet: there was no Docker where it was written.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY training training
COPY export export
COPY protos protos
RUN python -m venv /opt/gvvad && /opt/gvvad/bin/pip install --no-cache-dir ".[cpu]"

FROM python:3.11-slim-bookworm AS runtime-cpu
RUN useradd --system --uid 10001 --home-dir /data --create-home gvvad
COPY --from=build /opt/gvvad /opt/gvvad
ENV PATH=/opt/gvvad/bin:$PATH \
    GVVAD_GRPC__HOST=0.0.0.0 \
    GVVAD_HTTP__HOST=0.0.0.0 \
    GVVAD_STORE__URL=sqlite:////data/gvvad.db
USER gvvad
WORKDIR /data
VOLUME /data
EXPOSE 50051 9464
# The first start verifies the bundle and warms the engine; /readyz answers 200 after that.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["gvvad"]
CMD ["serve"]
