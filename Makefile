.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := node_modules/.bin

.PHONY: help setup build test demo bench faults model lint format unit e2e versions clean

help: ## This list.
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

setup: ## Installs what is missing: Debian packages (as root), pnpm, dependencies.
	@scripts/setup

build: setup ## The addon and the TypeScript.
	@scripts/build

test: setup ## All there is: lint, knip, types, unit, end to end.
	@node scripts/test.mjs

DEMO ?= --report vmferry-demo.html
demo: ## Moves a running guest by every strategy, prints what it took and writes a page about it. DEMO="--report FILE.html"
	@scripts/setup demo
	@scripts/build
	@./vmferry demo $(DEMO)

bench: build ## Beside QEMU's own migration. BENCH="--runs 3 --rate 1gbit"
	@node test/dist/bench/main.js $(BENCH)

faults: build ## Migrations of a libvirt domain, each with a fault at a random moment. FAULTS="--runs 50 --seed 1"
	@node test/dist/faults/main.js $(FAULTS)

model: build ## The simulator's predictions beside real migrations. MODEL="--rates 500mbit"
	@node test/dist/bench/check-model.js $(MODEL)

lint: setup ## Biome and knip.
	@$(BIN)/biome check --error-on-warnings .
	@$(BIN)/knip

format: setup ## Puts the code in its form.
	@$(BIN)/biome check --write .

unit: build ## The tests of the packages. TEST="packages/wire"
	@$(BIN)/vitest run --project unit $(TEST)

e2e: build ## The tests across packages. TEST="test/migrate"
	@$(BIN)/vitest run --project e2e $(TEST)

versions: build ## The moves between the installed QEMU and another. QEMU=/path/to/qemu-system-x86_64 TEST="test/migrate/shapes.test.ts"
	@node scripts/versions.mjs $(QEMU) $(TEST)

clean: ## Removes what was built; not the dependencies.
	@rm -rf native/build native/dist native/.cache packages/*/dist test/dist .cache/types .cache/test
