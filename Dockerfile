FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/constraints.txt .ci/
COPY daemon daemon
RUN python -m venv /opt/tablefeed \
 && /opt/tablefeed/bin/pip install --no-cache-dir --constraint .ci/constraints.txt .

FROM python:3.12-slim
RUN groupadd --gid 10001 tablefeed \
 && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/tablefeed --shell /usr/sbin/nologin tablefeed
COPY --from=build /opt/tablefeed /opt/tablefeed
ENV PATH=/opt/tablefeed/bin:$PATH
USER 10001:10001
WORKDIR /var/lib/tablefeed
VOLUME /var/lib/tablefeed
# Asks the default address from inside. With another `[http] listen`, or none, start the container with --no-healthcheck;
# Kubernetes ignores this line and has its own probes, for which the daemon must listen on ":8787".
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import http.client as http; c = http.HTTPConnection('127.0.0.1', 8787, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["tablefeed"]
CMD ["run"]
