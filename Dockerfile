# Rolecall in two stages: a toolchain to build with, then the binary, the certificate authorities
# and a user of its own, 65532. `make image` builds it.
#
#   docker run --rm -v rolecall:/var/lib/rolecall rolecall keyring init /var/lib/rolecall/rolecall.keys
#   docker run -d -p 8080:8080 -v rolecall:/var/lib/rolecall --stop-timeout 120 rolecall

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin rolecall && mkdir data

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 65532 --no-create-home --shell /usr/sbin/nologin rolecall
COPY --from=build /build/target/release/rolecall /usr/local/bin/rolecall
COPY --from=build --chown=rolecall:rolecall /build/data /var/lib/rolecall
ENV ROLECALL_SERVER__LISTEN=0.0.0.0:8080 \
    ROLECALL_STORE__URL=sqlite:///var/lib/rolecall/rolecall.db \
    ROLECALL_KEYS_FILE=/var/lib/rolecall/rolecall.keys \
    ROLECALL_LOG__FORMAT=json
WORKDIR /var/lib/rolecall
VOLUME /var/lib/rolecall
USER rolecall
EXPOSE 8080
HEALTHCHECK --start-period=10s CMD ["/usr/local/bin/rolecall", "health"]
# A stop is a SIGTERM: requests in flight get server.drain_seconds, and then refreshes of tokens up to
# 70 seconds: docker stop --time 120.
ENTRYPOINT ["/usr/local/bin/rolecall"]
CMD ["serve"]
