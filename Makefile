# procstorm: build it, watch it, test it.  `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Programs that tests/tools.sh unpacked come first, then the machine's own.
export PATH := $(abspath $(TARGET))/tools/$(or $(PROCSTORM_STACK),.)/bin:$(abspath $(TARGET))/tools/bin:$(PATH):/usr/sbin:/sbin

.PHONY: help rust build release install packages demo run test field field-arm64 field-kernels generations check lint fmt docs deny \
    rules unit bench fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

rust:
	@command -v $(firstword $(CARGO)) >/dev/null || { \
	    echo "make: no $(firstword $(CARGO)) on PATH: Rust is needed, from 1.95 on, of https://rustup.rs" >&2; \
	    exit 1; }

build: rust ## build everything (debug)
	$(CARGO) build --workspace --bins

release: rust ## build the two daemons for use
	$(CARGO) build --release -p procstorm-exporter -p procstorm-remediator -p xtask

# DESTDIR, PREFIX and the rest: see deploy/install.sh. It builds nothing, so that root needs no cargo.
install: ## install the daemons, and what Prometheus and Alertmanager need (DESTDIR, PREFIX)
	@DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) PROGRAMS=$(or $(PROGRAMS),$(TARGET)/release) deploy/install.sh

packages: rust ## Debian packages, RPMs and a tarball, in target/packages (ARCH=arm64: cross-built)
	@tests/tools.sh packages
	deploy/packages.sh $(ARCH)

demo: rust ## watch a real storm being seen, archived, killed and mailed
	@tests/tools.sh stack
	$(CARGO) build --quiet --workspace --bins
	$(TARGET)/debug/demo

run: rust ## the same stack without a storm, until Ctrl-C
	@tests/tools.sh stack
	$(CARGO) build --quiet --workspace --bins
	$(TARGET)/debug/demo --stay

# All tests run on the oldest Prometheus and Alertmanager, the essential ones on newer ones too.
test: export PROCSTORM_STACK ?= bookworm
test: rust ## everything that must hold: formatting, lints, docs, rules, all tests
	@tests/tools.sh test
	$(MAKE) --no-print-directory lint docs rules deny unit
	@if [ "$$PROCSTORM_STACK" = bookworm ]; then $(MAKE) --no-print-directory generations; \
	else echo "SKIPPED: make generations: PROCSTORM_STACK is $$PROCSTORM_STACK"; fi

# With the control: twenty mailboxes that SIGTERM leaves whole, and what SIGKILL at once does to them.
field: build ## what takes too long for make test: a mail server, arm64, other kernels
	@tests/tools.sh test
	$(CARGO) test -p procstorm-tests --test field mail_server -- --ignored --nocapture
	$(MAKE) --no-print-directory field-arm64 field-kernels

field-arm64: rust ## cross-built packages, whose programs run under qemu-user
	tests/arm64.sh

field-kernels: rust ## the product on other kernels, from 5.10 to the newest, under QEMU (slow)
	CARGO="$(CARGO)" tests/kernels/run.sh $(KERNELS)

generations: build ## the essential tests on newer Prometheus and Alertmanager: trixie's and sid's
	CARGO="$(CARGO)" tests/generations.sh $(GENERATIONS)

lint: rust ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings

fmt: rust ## format the sources
	$(CARGO) fmt --all

# A module's table of contents names private modules, which are documented here as well.
docs: rust ## the documents' tables are as the code has them; the documentation of the code
	$(CARGO) xtask docs --check
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --quiet --workspace --no-deps --document-private-items

rules: ## check rules, their tests, and Alertmanager's configuration
	@tests/tools.sh stack
	rules/check.sh
	grafana/check-model.sh

deny: rust ## licences, sources and advisories of the dependencies
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	    $(CARGO) deny check bans licenses sources; \
	    if $(CARGO) deny fetch; then $(CARGO) deny check advisories; \
	    else echo "deny: ADVISORIES NOT CHECKED: their database cannot be fetched" >&2; fi; \
	else \
	    echo "deny: NOT CHECKED: no cargo-deny here (cargo install cargo-deny)" >&2; \
	fi

unit: build ## all of cargo's tests, with their totals
	tests/totals.sh $(CARGO) test --workspace --no-fail-fast

bench: rust ## costs beside those of others, as ratios
	@tests/tools.sh bench
	$(CARGO) build --quiet --release --workspace --bins
	$(CARGO) bench --workspace

fuzz: rust ## libFuzzer on every kind of input from outside, FUZZ_SECONDS each (needs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null || { echo "fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	for target in stat_line command_name user_name payload config web_config rules routes; do \
	    (cd tests && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir fuzz --sanitizer none $$target -- \
	        -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096) || exit 1; \
	done

clean: rust ## remove what was built and unpacked
	$(CARGO) clean
