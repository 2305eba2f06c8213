# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true \
    UV_PROJECT_ENVIRONMENT=/opt/venv
WORKDIR /src
COPY pyproject.toml uv.lock ./
# x86-64. `tensorflow-cpu` is the same code without CUDA kernels, and half the download.
RUN uv sync --frozen --no-default-groups --group image --extra openvino --extra interop --extra otel \
        --no-install-package tensorflow --no-install-project
COPY README.md ./
COPY docs/LICENSE ./docs/LICENSE
COPY app ./app
COPY training ./training
RUN uv sync --frozen --no-default-groups --group image --extra openvino --extra interop --extra otel \
        --no-install-package tensorflow --no-editable

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="DermHybrid" \
      org.opencontainers.image.description="Research software. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin dermhybrid \
    && install -d -o dermhybrid -m 750 /var/lib/dermhybrid/audit /var/lib/dermhybrid/queue
COPY --from=build /opt/venv /opt/venv
# Readable by the user below also where the checkout is not.
COPY --chmod=0755 models /srv/models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RUNTIME=openvino \
    MODELS_DIR=/srv/models
USER 10001
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
CMD ["dermhybrid", "serve", "--host", "0.0.0.0", "--port", "8000"]
