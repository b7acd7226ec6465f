# The image hello:dev: one program for every actor and every deployment shape. What a container runs is said by
# HELLO_* variables alone. It must not know of Kubernetes, Redis or a cluster.
#
# Only what every builder understands: no build arguments, no mounts, no second registry.

FROM python:3.13-slim AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src

# Without pip: the base's own pip installs into it, and the image that runs needs none.
RUN python3 -m venv --without-pip /opt/hello

# Dependencies first: their layer is rebuilt only when the lock changes. Wheels only, since there is no compiler here.
COPY requirements.lock ./
RUN pip --python /opt/hello/bin/python install --only-binary :all: --require-hashes -r requirements.lock

# What builds is locked as well, and stays behind in an environment of its own.
COPY build.lock ./
RUN python3 -m venv --without-pip /opt/build && \
    pip --python /opt/build/bin/python install --only-binary :all: --require-hashes -r build.lock

COPY pyproject.toml README.md LICENSE ./
COPY hello ./hello
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist && \
    pip --python /opt/hello/bin/python install --no-deps --no-index /dist/hello-*.whl

# The Python packages of the image as a CycloneDX list: names, versions and licences, for scanners and for people. What
# Debian brings is the base's, and known to its own package manager.
RUN /opt/build/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
    --output-file /opt/hello/sbom.cdx.json /opt/hello/bin/python


FROM python:3.13-slim

LABEL org.opencontainers.image.title="hello" \
      org.opencontainers.image.description="Says Hello world at random moments, live in every open browser." \
      org.opencontainers.image.licenses="MIT"

# Inside a container the loopback address reaches nobody: both servers listen on every address.
ENV PATH="/opt/hello/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HELLO_HOST=0.0.0.0 \
    HELLO_OPS_HOST=0.0.0.0

COPY --from=build /opt/hello /opt/hello

# pip compiled our packages; the base has dropped the standard library's bytecode, and a read-only root can keep none,
# so that without this every start would compile it anew.
RUN python3 -m compileall -q -x '/(site-packages|dist-packages|ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# A number, so that Kubernetes can see that it is not root.
USER 10001:10001

EXPOSE 8000 8001

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('HELLO_OPS_PORT', '8001') + '/livez', timeout=2)"]

ENTRYPOINT ["hello"]
