# Everything sets itself up: see build/setup. A fresh Debian machine needs Go,
# git and make.

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 5s

.PHONY: all build demo test lint fuzz bench packages test-packages setup clean
.DEFAULT_GOAL := build

all: build lint test

build: ## all commands, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

demo: setup build ## the lab, a deployment, one that fails: a minute, no questions
	bin/r3-lab demo

test: setup ## everything that runs in minutes
	build/test

lint: ## gofmt, vet, staticcheck
	@unformatted="$$(gofmt -l .)"; [ -z "$$unformatted" ] || { echo "not as gofmt writes it:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fuzz: ## each fuzz test for FUZZTIME
	build/fuzz $(FUZZTIME)

bench: ## all benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

packages: ## deb and rpm for amd64 and arm64, into dist/
	packaging/build

test-packages: ## installs them into fresh Debians: minutes, root, a mirror of Debian
	build/setup debootstrap lintian rpm rpmlint dnf createrepo-c mandoc gnupg qemu-user-static
	DIST=$(CURDIR)/dist/test packaging/build
	DIST=$(CURDIR)/dist/test/next VERSION=99.0.0 packaging/build $$($(GO) env GOARCH)
	DIST=$(CURDIR)/dist/test build/test -tags packages -timeout 20m ./packaging/...

setup:
	@build/setup

clean:
	rm -rf bin dist
