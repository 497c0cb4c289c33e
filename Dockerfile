# One image with every command: meshproxy, mesh-control, mesh-injector, mesh-init, meshctl. The pod's manifest says which one runs.
# Nothing but volumes is written: the root file system may be read-only.

# The dashboard's page: node is only needed here.
FROM node:22-slim AS page
WORKDIR /src
COPY setup.py pyproject.toml README.md ./
COPY control/page control/page
WORKDIR /src/control/page
RUN npm ci --no-audit --no-fund && node build.mjs

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/mesh && /opt/mesh/bin/pip install --no-cache-dir "setuptools>=68,<82" "wheel>=0.43,<1"
# Dependencies first: they change less often than the code.
COPY pyproject.toml ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /tmp/requirements.txt \
    && /opt/mesh/bin/pip install --no-cache-dir -r /tmp/requirements.txt
COPY setup.py README.md ./
COPY meshproxy meshproxy
COPY control control
COPY injector injector
COPY --from=page /src/control/page/dist control/page/dist
RUN MESH_PAGE=skip /opt/mesh/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/mesh/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
    && /opt/mesh/bin/pip uninstall --yes setuptools wheel pip

FROM python:3.12-slim
LABEL org.opencontainers.image.title="pymesh" \
      org.opencontainers.image.description="A service mesh in Python: sidecar, control, injector, init, command line" \
      org.opencontainers.image.licenses="Apache-2.0"
# mesh-init writes the interception's rules with iptables and looks at addresses with ip.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iptables iproute2 \
    && rm -rf /var/lib/apt/lists/*
# 1337 is the user whose traffic the interception's rules leave alone.
RUN groupadd --gid 1337 mesh \
    && useradd --uid 1337 --gid 1337 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mesh \
    && install -d -o mesh -g mesh /var/lib/mesh
COPY --from=build /opt/mesh /opt/mesh
ENV PATH=/opt/mesh/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/mesh
USER 1337:1337
HEALTHCHECK NONE
CMD ["meshproxy"]
