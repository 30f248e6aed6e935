# One image for the API, the workers (with or without a GPU) and migrations; the command chooses.
FROM python:3.12-slim AS build
# the index of PyTorch's CPU builds given here makes the image several GB smaller
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/detrank
ENV PATH=/opt/detrank/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md ./
COPY detrank detrank
COPY app app
COPY worker worker
COPY models_store models_store
COPY outbound outbound
COPY migrations migrations
RUN pip install ".[s3,parquet]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home detrank && install -d -o detrank -g detrank /data
COPY --from=build /opt/detrank /opt/detrank
ENV PATH=/opt/detrank/bin:$PATH PYTHONUNBUFFERED=1 DETRANK_DATA_DIR=/data
VOLUME /data
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["detrank"]
CMD ["serve", "--host", "0.0.0.0"]
