# The two commands of the project are `make demo` and `make test`; each sets up
# what it needs. The rest is for daily work.

TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
CARGO := cargo
export CARGO_BUILD_TARGET := $(TARGET)
DEBUG := target/$(TARGET)/debug/sampan
RELEASE := target/$(TARGET)/release/sampan

TEST_PACKAGES := nftables iptables iproute2 util-linux conntrack bind9-dnsutils busybox-static python3 openssl

.PHONY: demo test check fix unit e2e bench release setup setup-test

# What a fresh Debian machine with a Rust toolchain lacks.
setup:
	@command -v cc >/dev/null || { apt-get update && apt-get install -y --no-install-recommends build-essential; }

setup-test: setup
	@missing=""; for package in $(TEST_PACKAGES); do \
		dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	[ -z "$$missing" ] || { apt-get update && apt-get install -y --no-install-recommends $$missing; }
	@command -v npm >/dev/null || apt-get install -y --no-install-recommends npm
	@command -v docker >/dev/null || apt-get install -y --no-install-recommends docker-cli \
		|| RUNLEVEL=1 apt-get install -y --no-install-recommends docker.io

demo: setup release
	$(RELEASE) demo

release:
	$(CARGO) build --release --bin sampan

test: check unit e2e

# Format, lints: one profile with the tests, so that dependencies are built once.
check: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit: setup-test
	$(CARGO) test --workspace --exclude sampan
	$(CARGO) test -p sampan --bins

# The built binary under real clients. Needs root.
e2e: setup-test
	SAMPAN_TOOLS_DIR=$$(scripts/tools) $(CARGO) test -p sampan --test e2e -- --test-threads=2

# Goal beside measured, for each figure of issues 2, 3 and 4. Needs root. runc and crun, where
# installed, run beside the engine. Debian's etcd (etcd-server),
# where installed, runs beside the store. A real kube-apiserver runs beside ours, under one load, if
# one is given: make bench KUBE_APISERVER=/usr/local/bin/kube-apiserver [ETCD=/usr/bin/etcd]
IDLE_SECONDS ?= 60
KUBE_APISERVER ?=
ETCD ?= etcd
RUNC ?= $(shell command -v runc)
CRUN ?= $(shell command -v crun)
bench: setup release
	$(CARGO) build --release --bin sampan-bench
	$(CARGO) build --release -p store --example bench
	$(dir $(RELEASE))sampan-bench --binary $(RELEASE) --idle-seconds $(IDLE_SECONDS) \
		--store-bench $(dir $(RELEASE))examples/bench \
		$(if $(RUNC),--runc $(RUNC)) $(if $(CRUN),--crun $(CRUN)) \
		$(if $(KUBE_APISERVER),--kube-apiserver $(KUBE_APISERVER) --etcd $(ETCD))
	$(CARGO) bench -p auth --bench decisions
	$(CARGO) bench -p schema --bench apply
	$(CARGO) bench -p apiserver --bench figures

fix:
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty
