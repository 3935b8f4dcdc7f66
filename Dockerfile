# A wheel for every dependency exists for this Python, so nothing is compiled. Another image of the same kind, say one from
# your own registry: --build-arg PYTHON_IMAGE=registry.example.com/python:3.13-slim
ARG PYTHON_IMAGE=python:3.13.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
RUN groupadd --gid 10001 tablefeed \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/tablefeed --shell /usr/sbin/nologin tablefeed \
 && install --directory --mode 0755 /root-of-image/etc /root-of-image/var /root-of-image/var/lib \
 && install --directory --mode 0770 --owner 10001 --group 10001 /root-of-image/var/lib/tablefeed \
 && cp --preserve=mode /etc/passwd /etc/group /root-of-image/etc/
WORKDIR /src
COPY .ci/constraints.txt .ci/
COPY pyproject.toml README.md LICENSE ./
COPY daemon daemon
# For a package index of your own: docker build --secret id=pip,src=pip.conf
# The bytecode is made here, since a read-only image cannot keep it, and is never compared with its source again.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/tablefeed \
 && PIP_CONSTRAINT=/src/.ci/constraints.txt PIP_BUILD_CONSTRAINT=/src/.ci/constraints.txt \
    python3 -m pip --python /opt/tablefeed/bin/python3 install --no-cache-dir --no-compile --constraint .ci/constraints.txt '.[crc64,postgres]' \
 && find /opt/tablefeed/lib -type d -name testing -prune -exec rm -r {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/tablefeed/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="tablefeed" \
      org.opencontainers.image.description="Watches export directories and delivers every file to its ProcessMind datatable" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /root-of-image /
COPY --from=build /opt/tablefeed /opt/tablefeed
ENV PATH=/opt/tablefeed/bin:$PATH
USER 10001:10001
WORKDIR /var/lib/tablefeed
VOLUME /var/lib/tablefeed
STOPSIGNAL SIGTERM
# Works with any `[http] listen`, and without one. Kubernetes ignores this line and has its own probes.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["tablefeed", "status", "--alive"]
ENTRYPOINT ["tablefeed"]
CMD ["run"]
