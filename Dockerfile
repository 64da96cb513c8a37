# Two images: `elemta` (both daemons and the command, unprivileged) and `postfix` (Postfix beside them).
#
#   docker build --target elemta -t elemta .
#   docker build --target postfix -t elemta-postfix .
ARG BASE=debian:trixie-slim

FROM ${BASE} AS base
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
# Debian's images throw downloaded packages away; the cache mounts below keep them out of the image instead.
RUN rm -f /etc/apt/apt.conf.d/docker-clean
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends ca-certificates passwd
# The same numbers in both images: the group may use the sockets, which the volume between them carries.
RUN groupadd --system --gid 10025 postfix \
 && useradd --system --uid 10025 --gid postfix --home-dir /var/spool/postfix --no-create-home \
    --shell /usr/sbin/nologin postfix \
 && groupadd --system --gid 10026 elemta \
 && useradd --system --uid 10026 --gid elemta --groups postfix --home-dir /var/lib/elemta --no-create-home \
    --shell /usr/sbin/nologin elemta \
 && install -d -o elemta -g postfix -m 2750 /run/elemta


FROM base AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends \
    gcc libc6-dev libmilter-dev python3-dev python3-venv
RUN python3 -m venv /opt/elemta
COPY pyproject.toml README.md LICENSE /src/
COPY elemta /src/elemta
COPY milter /src/milter
COPY policyd /src/policyd
COPY plugins /src/plugins
COPY postfix-conf /src/postfix-conf
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/elemta/bin/pip install --disable-pip-version-check /src
# What the postfix image needs: its configuration, from the same templates as everywhere.
RUN /opt/elemta/bin/elemta postfix render /opt/postfix \
    --set MILTER=unix:/run/elemta/milter.sock \
    --set POLICYD=unix:/run/elemta/policyd.sock \
    --set MAILLOG_FILE=/dev/stdout \
    --set MYDESTINATION= \
    --set ALIAS_MAPS= \
    --set VIRTUAL_MAILBOX_DOMAINS='$myhostname example.org' \
    --set VIRTUAL_MAILBOX_MAPS=static:mail/


FROM base AS elemta
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends \
    libarchive-tools libmagic1 libmilter1.0.1 python3
COPY --from=build /opt/elemta /opt/elemta
COPY docker/policy /etc/elemta
RUN install -d -o elemta -g elemta -m 0750 /var/lib/elemta /run/elemta-metrics
ENV PATH=/opt/elemta/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER elemta
VOLUME /var/lib/elemta
CMD ["elemta-milter", "--config", "/etc/elemta/elemta.yaml"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8890/readyz', timeout=4)"]


FROM base AS postfix
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update \
 && echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections \
 && apt-get install -y --no-install-recommends postfix
COPY --from=build /opt/postfix/main.cf /opt/postfix/master.cf /etc/postfix/
COPY docker/postfix.sh /usr/local/bin/postfix.sh
RUN install -d -o nobody -g nogroup -m 0750 /var/mail/vhosts
EXPOSE 25
VOLUME ["/var/spool/postfix", "/var/mail/vhosts"]
# As process 1, Postfix's master runs as root: it listens on port 25 and starts each program as the user postfix.
CMD ["/usr/local/bin/postfix.sh"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/25 && read -r line <&3 && [[ $line == 220* ]] && echo QUIT >&3"]
