# Rolecall in two stages: a toolchain to build with, then the binary and nothing to log in to.
# `make image` builds it. The second stage has glibc, libgcc and the certificate authorities, no
# shell and no package manager, and a user `nonroot` (65532).
#
#   docker run --rm -v rolecall:/var/lib/rolecall rolecall keyring init /var/lib/rolecall/rolecall.keys
#   docker run -d -p 8080:8080 -v rolecall:/var/lib/rolecall rolecall

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin rolecall && mkdir data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/rolecall /usr/local/bin/rolecall
COPY --from=build --chown=nonroot:nonroot /build/data /var/lib/rolecall
ENV ROLECALL_SERVER__LISTEN=0.0.0.0:8080 \
    ROLECALL_STORE__URL=sqlite:///var/lib/rolecall/rolecall.db \
    ROLECALL_KEYS_FILE=/var/lib/rolecall/rolecall.keys \
    ROLECALL_LOG__FORMAT=json
WORKDIR /var/lib/rolecall
VOLUME /var/lib/rolecall
USER nonroot
EXPOSE 8080
HEALTHCHECK --start-period=10s CMD ["/usr/local/bin/rolecall", "health"]
# A stop is a SIGTERM, and requests in flight get server.drain_seconds: docker stop --time 30.
ENTRYPOINT ["/usr/local/bin/rolecall"]
CMD ["serve"]
