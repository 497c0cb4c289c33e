# One image with every command: meshproxy, mesh-control, meshctl. The pod's manifest says which one runs.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/mesh
# Dependencies first: they change less often than the code.
COPY pyproject.toml ./
RUN python - <<'EOF' > /tmp/requirements.txt
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))
EOF
RUN /opt/mesh/bin/pip install --no-cache-dir -r /tmp/requirements.txt
COPY README.md ./
COPY meshproxy meshproxy
COPY control control
COPY injector injector
RUN /opt/mesh/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
# 1337 is the user whose traffic Istio's interception rules leave alone.
RUN useradd --uid 1337 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mesh \
    && install -d -o mesh -g mesh /var/lib/mesh
COPY --from=build /opt/mesh /opt/mesh
ENV PATH=/opt/mesh/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /var/lib/mesh
USER 1337:1337
CMD ["meshproxy"]
