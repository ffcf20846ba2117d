# crmsync: `make help` lists what there is.
SHELL := bash
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
SEEDS       ?= 2000
FUZZTIME    ?= 30s

.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## run the worker (CONFIG=crmsync.yaml)
	go run ./cmd/crmsync run --config $(or $(CONFIG),crmsync.yaml)

demo: ## the whole thing on this machine, in about 20 s
	go run ./cmd/crmsync demo

build: ## a static binary in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/crmsync ./cmd/crmsync

test: ## what the README says
	go test ./...

race: ## the same under the race detector
	go test -race ./...

check: lint race ## everything CI checks

lint: ## vet, gofumpt, staticcheck, the arrows
	go vet ./...
	@out=$$(go run $(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	go run $(STATICCHECK) ./...
	go test -run '^TestArrows$$' ./cmd/crmsync

fmt: ## format
	go run $(GOFUMPT) -w .

bench: incidents ## benchmarks: time, allocations; a drain and a strict quota by real processes
	go test -run '^$$' -bench . -benchmem -timeout 0 ./...

incidents: ## what each kind of bad day costs: letters, attempts, requests, time to the full rate
	@mkdir -p bin
	@go test -run '^TestIncident' -count=1 -v ./worker > bin/incidents.txt || { cat bin/incidents.txt; exit 1; }
	@grep -o 'figures: .*' bin/incidents.txt | sed 's/^figures: TestIncident//'

sim: ## longer simulations: the lane, whole workers, the queue (SEEDS=2000)
	go test -run '^TestPlans$$' ./worker -rapid.checks=$$(( $(SEEDS) * 20 )) -timeout 0
	go test -run '^TestSimulation$$' ./worker -sim.seeds=$(SEEDS) -timeout 0 -v
	go test -run '^TestHiddenLimits$$' ./worker -quota.all -timeout 0
	GODEBUG=asyncpreemptoff=1 go test -run '^TestSimulation$$' ./app -sim.seeds=$$(( $(SEEDS) / 20 + 1 )) -timeout 0 -v
	go test -run '^TestSimulation$$' ./queue -sim.seeds=$$(( $(SEEDS) / 50 + 1 )) -timeout 0 -v

sim-night: ## whole workers, simulated for HOURS (100) on every core
	@set -e; go test -c -o bin/sim.test ./app; cd app; n=$$(nproc); seeds=$$(( $(or $(HOURS),100) * 6 / n + 1 )); pids=; \
	for i in $$(seq 0 $$(( n - 1 ))); do \
	  GOMAXPROCS=1 GODEBUG=asyncpreemptoff=1 ../bin/sim.test -test.run '^TestSimulation$$' -test.timeout 0 -test.v \
	    -sim.first=$$(( $(or $(FIRST),1) + i * seeds )) -sim.seeds=$$seeds > ../bin/sim.$$i.txt 2>&1 & pids="$$pids $$!"; \
	done; bad=0; for p in $$pids; do wait $$p || bad=1; done; \
	grep -hE '^ +--- FAIL|BROKEN|to repeat|not valid|simulated hours|^panic|^fatal' ../bin/sim.*.txt; \
	awk '/^    sim_test.go:[0-9]+: +[0-9]+ [a-z]/ { $$1 = ""; n = $$2; $$2 = ""; sum[$$0] += n } END { for (k in sum) printf "%9d %s\n", sum[k], k }' ../bin/sim.*.txt | sort -k2; \
	exit $$bad

planted: ## plant bugs and see whether the simulations find them (ONLY=name,... LIMIT=5m)
	go run ./history/planted -limit $(or $(LIMIT),5m) -only '$(ONLY)'

judge: ## what a history says of the promises (HISTORY=file.jsonl)
	go run ./history/judge $(HISTORY)

kills: ## kill -9 of real workers, long form (KILLS=200)
	go test -run '^TestKill' ./cmd/crmsync -kills=$(or $(KILLS),200) -timeout 0 -v

faults: ## every fault with real processes, long form, and a table at the end (ROUNDS=40)
	go test -run '^Test(Fault|Kill)' ./cmd/crmsync -faults=$(or $(ROUNDS),40) -kills=$(or $(ROUNDS),40) -timeout 0 -v

night: ## 200,000 rows at two quotas, with kill -9 on the way (ROWS=200000)
	go test -run '^TestNight$$' ./cmd/crmsync -night.rows=$(or $(ROWS),200000) -test.parallel 1 -timeout 0 -v

fuzz: ## every fuzz target for FUZZTIME (30s)
	@for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

clean: ## remove what was built
	rm -rf bin dist

.PHONY: help run demo build test race check lint fmt bench sim sim-night planted judge kills faults night fuzz clean
