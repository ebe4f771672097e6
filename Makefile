# Builds, shows and tests procstorm.  `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Programs that tests/tools.sh unpacked come first, then the machine's own.
export PATH := $(abspath $(TARGET))/tools/$(or $(PROCSTORM_STACK),.)/bin:$(abspath $(TARGET))/tools/bin:$(PATH):/usr/sbin:/sbin

.PHONY: help rust build release install uninstall packages demo run storm pictures test field field-fleet field-arm64 field-kernels generations lint fmt docs deny \
    rules unit bench fuzz mutants dashboard-picture clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' Makefile

rust:
	@command -v $(firstword $(CARGO)) >/dev/null || { \
	    echo "make: $(firstword $(CARGO)) is not in PATH: install Rust 1.89 or newer from https://rustup.rs" >&2; \
	    exit 1; }

build: rust ## build everything (debug)
	$(CARGO) build --workspace --bins

release: rust ## build the two daemons for use
	$(CARGO) build --release -p procstorm-exporter -p procstorm-remediator -p xtask

# DESTDIR, PREFIX and the rest: see deploy/install.sh. It builds nothing, so that root needs no cargo.
install: ## install the daemons, and what Prometheus and Alertmanager need (DESTDIR, PREFIX)
	@DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) PROGRAMS=$(or $(PROGRAMS),$(TARGET)/release) deploy/install.sh

uninstall: ## remove what make install has installed; what you changed or wrote stays (DESTDIR, PREFIX)
	@UNINSTALL=1 DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) deploy/install.sh

packages: rust ## build Debian packages, RPMs and a tarball in target/packages (ARCH=arm64: for arm64)
	@tests/tools.sh packages
	deploy/packages.sh $(ARCH)

demo: rust ## start a real storm, and watch it being seen, archived, killed and mailed
	@tests/tools.sh stack
	$(CARGO) build --quiet --workspace --bins
	$(TARGET)/debug/demo

run: rust ## run the same programs without a storm, until Ctrl-C
	@tests/tools.sh stack
	$(CARGO) build --quiet --workspace --bins
	$(TARGET)/debug/demo --stay

storm: ## raise a storm on what `make run` keeps running, and watch it
	@[ -x $(TARGET)/debug/demo ] || { echo "make storm: start make run first, in another terminal" >&2; exit 1; }
	@$(TARGET)/debug/demo --storm

# Each by the test that looks at the same page, so that no picture shows what the tests do not see.
pictures: export PROCSTORM_STACK ?= bookworm
pictures: build ## make the pictures of mails and pages again, which the documents show (as root)
	@tests/tools.sh test
	@mkdir -p $(TARGET)/pictures
	PROCSTORM_PICTURES=$(TARGET)/pictures $(CARGO) test -q -p procstorm-tests --test remediator status_page::
	PROCSTORM_PICTURES=$(TARGET)/pictures $(CARGO) test -q -p procstorm-tests --test e2e mail::the_mails_show
	cp $(TARGET)/pictures/status-page.png $(TARGET)/pictures/remediation-page.png remediator/
	cp $(TARGET)/pictures/landing-page.png exporter/
	cp $(TARGET)/pictures/mail.png alertmanager/

# All tests run on the oldest Prometheus and Alertmanager, the essential ones on newer ones too.
test: export PROCSTORM_STACK ?= bookworm
test: rust ## run everything that must hold: formatter, lints, docs, rules, all tests
	@tests/tools.sh test
	$(MAKE) --no-print-directory lint docs rules deny unit
	@if [ "$$PROCSTORM_STACK" = bookworm ]; then $(MAKE) --no-print-directory generations; \
	else echo "SKIPPED: make generations: PROCSTORM_STACK is $$PROCSTORM_STACK"; fi

# Among the tests: twenty mailboxes stay whole if SIGTERM comes first. As a control, the same test
# sends SIGKILL at once, which must harm some of them.
field: build ## run what takes too long for make test: servers, Ansible, 20 hosts, arm64, other kernels
	@tests/tools.sh test
	tests/field.sh servers
	tests/field.sh ansible
	$(CARGO) test -p procstorm-tests --test field -- --ignored --nocapture --test-threads=1 \
	    mail_server:: servers:: ansible::
	$(CARGO) test -p procstorm-tests --test counting -- --ignored --nocapture
	@tests/tools.sh stack
	$(CARGO) test -p procstorm-tests --test e2e -- --ignored --nocapture week::
	$(MAKE) --no-print-directory field-fleet
	PROCSTORM_STACK=sid $(MAKE) --no-print-directory field-fleet
	$(MAKE) --no-print-directory field-arm64 field-kernels

field-fleet: build ## test 20 hosts with a pair of Prometheus and 3 Alertmanagers, and their failures (as root)
	@tests/tools.sh stack
	$(CARGO) test -p procstorm-tests --test fleet -- --ignored --nocapture --test-threads=1 twenty::

field-arm64: rust ## build the packages for arm64, and run their programs under qemu-user
	tests/arm64.sh

field-kernels: rust ## test on other kernels, from 5.10 to the newest, under QEMU (slow)
	CARGO="$(CARGO)" tests/kernels/run.sh $(KERNELS)
	$(if $(filter bullseye,$(or $(KERNELS),bullseye)),CARGO="$(CARGO)" tests/kernels/unit.sh)

generations: build ## run the essential tests with newer Prometheus and Alertmanager (trixie, sid)
	CARGO="$(CARGO)" tests/generations.sh $(GENERATIONS)

lint: rust ## check formatting, clippy, the oldest Rust, dependencies and scripts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	CARGO="$(CARGO)" tests/lint.sh

fmt: rust ## format the sources
	$(CARGO) fmt --all

# A module's table of contents names private modules, which are documented here as well.
docs: rust ## check the documents' tables against the code; build the code's documentation
	$(CARGO) xtask docs --check
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --quiet --workspace --no-deps --document-private-items

rules: ## check the rules, run their tests, check Alertmanager's configuration
	@tests/tools.sh stack
	rules/check.sh
	grafana/check-model.sh

deny: rust ## check licences, sources and advisories of the dependencies
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	    $(CARGO) deny check bans licenses sources; \
	    if $(CARGO) deny fetch; then $(CARGO) deny check advisories; \
	    else echo "deny: ADVISORIES NOT CHECKED: cannot download their database" >&2; fi; \
	else \
	    echo "deny: NOT CHECKED: cargo-deny is not installed (cargo install cargo-deny)" >&2; \
	fi

unit: build ## run all of cargo's tests, and print the totals
	tests/totals.sh $(CARGO) test --workspace --no-fail-fast

bench: rust ## measure the cost, and compare it with other programs
	@tests/tools.sh bench
	$(CARGO) build --quiet --release --workspace --bins
	$(CARGO) bench --workspace

fuzz: rust ## fuzz every kind of input from outside, FUZZ_SECONDS each (needs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null || { echo "fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	for target in stat_line command_name user_name payload config web_config rules routes; do \
	    (cd tests && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir fuzz --sanitizer none $$target -- \
	        -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096) || exit 1; \
	done

mutants: rust ## change the modules that decide, and see that a test fails (slow; MODULES=...; needs cargo-mutants)
	CARGO="$(CARGO)" tests/mutants.sh $(MODULES)

dashboard-picture: build ## draw the dashboard with Grafana's components after some minutes of storms (root, npm, chromium)
	@tests/tools.sh stack
	CARGO="$(CARGO)" grafana/picture.sh

clean: rust ## delete what was built and unpacked
	$(CARGO) clean
