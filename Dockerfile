# Rolecall in two stages: a toolchain to build with, then the binary, the certificate authorities
# and a user of its own, 65532. `make image` builds it.
#
#   docker run --rm -v rolecall-keys:/var/lib/rolecall-keys rolecall keyring init /var/lib/rolecall-keys/rolecall.keys
#   docker run -d -p 8080:8080 -v rolecall:/var/lib/rolecall -v rolecall-keys:/var/lib/rolecall-keys \
#     --ulimit nofile=65536 --stop-timeout 120 rolecall

FROM rust:1.95-bookworm AS build
WORKDIR /build
# What Rolecall depends on, in a layer that stays until Cargo.lock changes: built for empty packages.
COPY Cargo.toml Cargo.lock ./
COPY simulator/Cargo.toml simulator/
RUN mkdir -p src simulator/src \
    && echo 'fn main() {}' | tee src/main.rs simulator/src/main.rs \
    && touch src/lib.rs simulator/src/lib.rs \
    && cargo build --release --locked --bin rolecall \
    && rm -r src simulator/src
COPY . .
# The sources are older than the empty packages; cargo goes by that.
RUN find src simulator/src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin rolecall \
    && strip target/release/rolecall \
    && mkdir data keys

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 rolecall \
    && useradd --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin rolecall
COPY --from=build /build/target/release/rolecall /usr/local/bin/rolecall
COPY --from=build --chown=65532:65532 /build/data /var/lib/rolecall
# The key ring is apart from the database, so that no copy of one has the other.
COPY --from=build --chown=65532:65532 /build/keys /var/lib/rolecall-keys
ENV ROLECALL_SERVER__LISTEN=0.0.0.0:8080 \
    ROLECALL_STORE__URL=sqlite:///var/lib/rolecall/rolecall.db \
    ROLECALL_STORE__JOURNAL=/var/lib/rolecall/rolecall.db.journal \
    ROLECALL_KEYS_FILE=/var/lib/rolecall-keys/rolecall.keys \
    ROLECALL_LOG__FORMAT=json
WORKDIR /var/lib/rolecall
VOLUME ["/var/lib/rolecall", "/var/lib/rolecall-keys"]
# By number: only so can Kubernetes tell that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 8080
# Whether it is to be started again, and not whether requests should be sent to it.
HEALTHCHECK --start-period=10s CMD ["/usr/local/bin/rolecall", "health", "--live"]
# A stop is a SIGTERM: server.lame_duck_seconds go by, requests in flight get server.drain_seconds, and
# then refreshes of tokens up to 70 seconds: docker stop --time 120.
ENTRYPOINT ["/usr/local/bin/rolecall"]
CMD ["serve"]
