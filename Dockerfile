# The image hello:dev: one program for every actor and every deployment shape. HELLO_* variables set what a container
# runs. The image must not know about Kubernetes, Redis or a cluster.
#
# This file uses only what every builder supports: no build arguments, no mounts, no second registry.

FROM python:3.13-slim AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src

# The environment has no pip: the base's pip installs into it, and the final image needs none.
RUN python3 -m venv --without-pip /opt/hello

# Dependencies come first, so that their layer is rebuilt only when the lock changes. The base has no compiler, so that
# only wheels can be installed.
COPY requirements.lock ./
RUN pip --python /opt/hello/bin/python install --only-binary :all: --require-hashes -r requirements.lock

# The build tools are locked too. Their environment does not reach the final image.
COPY build.lock ./
RUN python3 -m venv --without-pip /opt/build && \
    pip --python /opt/build/bin/python install --only-binary :all: --require-hashes -r build.lock

COPY pyproject.toml README.md LICENSE ./
COPY hello ./hello
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist && \
    pip --python /opt/hello/bin/python install --no-deps --no-index /dist/hello-*.whl

# A CycloneDX list of the image's Python packages, with versions and licences, for scanners and for people. Debian's
# packages are listed by the package manager of the base.
RUN /opt/build/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
    --output-file /opt/hello/sbom.cdx.json /opt/hello/bin/python


FROM python:3.13-slim

LABEL org.opencontainers.image.title="hello" \
      org.opencontainers.image.description="Broadcasts Hello world at random intervals, live in every open browser." \
      org.opencontainers.image.licenses="MIT"

# Nobody outside a container can reach its loopback address: both servers listen on every address.
ENV PATH="/opt/hello/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HELLO_HOST=0.0.0.0 \
    HELLO_OPS_HOST=0.0.0.0

COPY --from=build /opt/hello /opt/hello

# pip has compiled our packages. The base has no bytecode of the standard library, and a read-only root cannot cache it:
# without this step every start would compile the library again.
RUN python3 -m compileall -q -x '/(site-packages|dist-packages|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# The user is a number, so that Kubernetes can check `runAsNonRoot`.
USER 10001:10001

EXPOSE 8000 8001

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('HELLO_OPS_PORT', '8001') + '/livez', timeout=2)"]

ENTRYPOINT ["hello"]
