# Two images, of the pins in requirements.lock:
#   docker build --target cpu -t timer1 .       TORCH_WHEELS=<index of CPU builds of torch> leaves out 5 GB of CUDA libraries
#   docker build --target cuda -t timer1:cuda . for --gpus all; the host brings the driver alone
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD":/work timer1 init book
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# hadolint ignore=DL3008,DL3013
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip install uv
WORKDIR /opt/timer1
COPY requirements.lock ./

FROM base AS wheel
RUN grep -E '^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==' requirements.lock > build.txt \
    && uv pip install --system --no-cache -r build.txt
COPY . .
RUN python -m hatchling build --target wheel --directory /dist

# Where a checkout is worked in: .devcontainer/
FROM base AS dev
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make chromium \
    && rm -rf /var/lib/apt/lists/*

FROM base AS cuda
RUN uv pip install --system --no-cache --compile-bytecode -r requirements.lock
COPY --from=wheel /dist /dist
RUN uv pip install --system --no-cache --no-deps --compile-bytecode /dist/*.whl
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
WORKDIR /work
ENTRYPOINT ["timer1"]
CMD ["--help"]

FROM base AS cpu
ARG TORCH_WHEELS=""
RUN if [ -n "$TORCH_WHEELS" ]; then \
        grep -vE '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' requirements.lock > rest.txt \
        && grep -E '^(torch|torchvision)==' requirements.lock > torch.txt \
        && uv pip install --system --no-cache --compile-bytecode -r rest.txt \
        && uv pip install --system --no-cache --compile-bytecode --no-deps --default-index "$TORCH_WHEELS" -r torch.txt; \
    else \
        uv pip install --system --no-cache --compile-bytecode -r requirements.lock; \
    fi
COPY --from=wheel /dist /dist
RUN uv pip install --system --no-cache --no-deps --compile-bytecode /dist/*.whl
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["timer1"]
CMD ["--help"]
